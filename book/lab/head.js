"use strict";
// The reward r_phi of section 4.2 on frozen features: two layers, ReLU, sigmoid; trained on L_MSE + lambda L_pc by AdamW, in plain numbers.

class Head {
  /** Weights {image: (H, D), bias: (H), text: (H, D), out: (H), shift: (1)}, drawn from `seed` unless given. */
  constructor(width, hidden, { seed = 0, weights } = {}) {
    const next = uniform(seed + 1), drawn = (size, fan) => Float64Array.from({ length: size }, () => (2 * next() - 1) / Math.sqrt(fan));
    Object.assign(this, { width, hidden });
    this.weights = weights
      ? Object.fromEntries(Object.entries(weights).map(([name, values]) => [name, Float64Array.from(values)]))
      : {
          image: drawn(hidden * width, 2 * width),
          bias: drawn(hidden, 2 * width),
          text: drawn(hidden * width, 2 * width),
          out: drawn(hidden, hidden),
          shift: drawn(1, hidden),
        };
  }

  layer(weight, row, bias) {
    const { width, hidden } = this, found = new Float64Array(hidden);
    for (let h = 0; h < hidden; h++) {
      let sum = bias ? bias[h] : 0;
      for (let d = 0, at = h * width; d < width; d++) sum += weight[at + d] * row[d];
      found[h] = sum;
    }
    return found;
  }

  ofImages = (rows) => rows.map((row) => this.layer(this.weights.image, row, this.weights.bias));
  ofTexts = (rows) => rows.map((row) => this.layer(this.weights.text, row));

  /** The score in [0, 1] of what `ofImages` and `ofTexts` gave. */
  score(image, text) {
    let sum = this.weights.shift[0];
    for (let h = 0; h < this.hidden; h++) sum += this.weights.out[h] * Math.max(0, image[h] + text[h]);
    return 1 / (1 + Math.exp(-sum));
  }

  scores(images, texts) {
    const [a, b] = [this.ofImages(images), this.ofTexts(texts)];
    return a.map((image, i) => this.score(image, b[i]));
  }
}

/** Gradients of both losses over the whole batch: images (M) and texts (U) features, candidates (M, N) places in texts, labels (M). */
function gradients(head, { images, texts, candidates, labels }, { lam, temperature }) {
  const { weights, width, hidden } = head, a = head.ofImages(images), c = head.ofTexts(texts);
  const zero = (rows) => rows.map(() => new Float64Array(hidden)), da = zero(a), dc = zero(c);
  const grads = Object.fromEntries(Object.entries(weights).map(([name, values]) => [name, new Float64Array(values.length)]));
  const good = labels.map((label, i) => (label > 0.5 ? i : -1)).filter((i) => i >= 0);
  const loss = { mse: 0, pc: 0 };

  function back(i, u, score, slope) { // d loss / d score
    const dz = slope * score * (1 - score);
    grads.shift[0] += dz;
    for (let h = 0; h < hidden; h++) {
      const sum = a[i][h] + c[u][h];
      if (sum <= 0) continue;
      grads.out[h] += dz * sum;
      da[i][h] += dz * weights.out[h];
      dc[u][h] += dz * weights.out[h];
    }
  }

  labels.forEach((label, i) => {
    const u = candidates[i][0], score = head.score(a[i], c[u]);
    loss.mse += (label - score) ** 2 / labels.length;
    back(i, u, score, (2 * (score - label)) / labels.length);
  });
  for (const i of good) {
    const scores = candidates[i].map((u) => head.score(a[i], c[u]));
    const powers = scores.map((score) => Math.exp(score / temperature)), sum = powers.reduce((x, y) => x + y);
    loss.pc -= Math.log(powers[0] / sum) / good.length;
    scores.forEach((score, k) => {
      const slope = (powers[k] / sum - (k === 0)) / temperature / good.length;
      back(i, candidates[i][k], score, lam * slope);
    });
  }
  const outer = (grad, rows, features) => rows.forEach((row, r) => {
    for (let h = 0; h < hidden; h++)
      if (row[h]) for (let d = 0, at = h * width; d < width; d++) grad[at + d] += row[h] * features[r][d];
  });
  outer(grads.image, da, images);
  outer(grads.text, dc, texts);
  da.forEach((row) => row.forEach((value, h) => (grads.bias[h] += value)));
  return { grads, loss };
}

/** Train a head in place, yielding {step, mse, pc} now and then. The plan is train.Plan's: warm-up, linear decay, a clipped gradient. */
function* training(head, data, { lam, temperature, lr, updates, warmup, decay, clip }) {
  const moments = Object.entries(head.weights).map(([name, values]) => ({
    name, values, mean: new Float64Array(values.length), square: new Float64Array(values.length),
  }));
  for (let step = 0; step < updates; step++) {
    const { grads, loss } = gradients(head, data, { lam, temperature });
    const norm = Math.sqrt(moments.reduce((sum, { name }) => sum + grads[name].reduce((s, g) => s + g * g, 0), 0));
    const scale = Math.min(1, clip / (norm + 1e-6));
    const rate = lr * Math.min((step + 1) / Math.max(warmup, 1), (updates - step) / Math.max(updates - warmup, 1), 1);
    const [unbias, root] = [1 - 0.9 ** (step + 1), Math.sqrt(1 - 0.999 ** (step + 1))];
    for (const { name, values, mean, square } of moments)
      for (let k = 0; k < values.length; k++) {
        const g = grads[name][k] * scale;
        mean[k] += 0.1 * (g - mean[k]);
        square[k] += 0.001 * (g * g - square[k]);
        values[k] -= rate * decay * values[k] + (rate / unbias) * mean[k] / (Math.sqrt(square[k]) / root + 1e-8);
      }
    if (step % 10 === 9 || step + 1 === updates) yield { step: step + 1, ...loss };
  }
}
