"use strict";
// DPM-Solver++ of second order (Lu et al., 2022), step by step as the book's scheduler takes it, and the noise it starts from.

class Solver {
  constructor(steps) {
    const { times, sigmas } = about.schedule.steps[steps];
    this.times = times;
    this.levels = sigmas.map((sigma) => {
      const alpha = about.schedule.flow ? 1 - sigma : 1 / Math.sqrt(sigma * sigma + 1);
      const deviation = about.schedule.flow ? sigma : sigma * alpha;
      return { alpha, deviation, lambda: Math.log(alpha) - Math.log(deviation) };
    });
    this.at = 0;
  }

  /** The clean latents that a prediction stands for. */
  clean(x, output) {
    const { alpha: a, deviation: s } = this.levels[this.at];
    const of = {
      epsilon: (x, o) => (x - s * o) / a,
      v_prediction: (x, o) => a * x - s * o,
      flow_prediction: (x, o) => x - s * o,
    }[about.schedule.predicts];
    return x.map((value, i) => of(value, output[i]));
  }

  /** Latents after the next step, of latents x and what the U-Net says of them. */
  step(x, output) {
    const clean = this.clean(x, output), [before, here, next] = [-1, 0, 1].map((k) => this.levels[this.at + k]);
    const last = this.last, final = this.at + 1 === this.times.length;
    this.last = clean;
    this.at += 1;
    if (final) return clean; // the last noise level is zero
    const h = next.lambda - here.lambda, shrink = next.deviation / here.deviation;
    const gain = -next.alpha * Math.expm1(-h), ratio = before ? h / (here.lambda - before.lambda) : 0;
    return x.map((value, i) => shrink * value + gain * (clean[i] + (before ? 0.5 * ratio * (clean[i] - last[i]) : 0)));
  }
}

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `size` standard normal numbers by Box and Muller. */
function normal(seed, size) {
  const next = uniform(Math.imul(seed, 0x9e3779b1));
  return Float32Array.from({ length: size }, () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()));
}
