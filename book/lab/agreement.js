"use strict";
// How far two say the same, and whether two rankings do.

/** Wilson's 95 % interval of `hits` among n. */
function wilson(hits, n) {
  const z = 1.959964, p = hits / n, middle = p + (z * z) / (2 * n);
  const reach = z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  return [(middle - reach) / (1 + (z * z) / n), (middle + reach) / (1 + (z * z) / n)];
}

/** Cohen's kappa of two lists of true and false: {agreed, n, kappa, low, high}. The interval is that of the agreement, chance held where it is. */
function kappa(a, b) {
  const n = a.length, agreed = a.filter((label, i) => label === b[i]).length;
  const [p, q] = [a, b].map((labels) => labels.filter(Boolean).length / n), chance = p * q + (1 - p) * (1 - q);
  const beyond = (share) => (share - chance) / (1 - chance); // NaN where both always say the same one thing
  const [low, high] = wilson(agreed, n).map(beyond);
  return { agreed, n, kappa: beyond(agreed / n), low, high };
}

/** Ranks from 1; equal values share theirs. */
function ranks(values) {
  return values.map((v) => 0.5 + values.reduce((sum, w) => sum + (w < v) + 0.5 * (w === v), 0));
}

/** Spearman's correlation. */
function spearman(a, b) {
  const centred = [a, b].map((values) => ranks(values).map((rank) => rank - (values.length + 1) / 2));
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0), [x, y] = centred;
  return dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y));
}

/** The share of pairs of a good and a bad one whose scores are in order. */
function inOrder(scores, good) {
  let right = 0, pairs = 0;
  scores.forEach((high, i) => scores.forEach((low, k) => {
    if (!good[i] || good[k]) return;
    pairs += 1;
    right += (high > low) + 0.5 * (high === low);
  }));
  return right / pairs;
}
