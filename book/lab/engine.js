"use strict";
// The models: loaded as scripts when they are first asked for (a page from a disk may not fetch files), run by onnxruntime-web.

const engine = (() => {
  const waiting = {}, sessions = {}, loads = {};
  let ort;

  globalThis.bring = (name, packed) => waiting[name](packed);

  async function bytes(name) {
    const packed = await new Promise((resolve, reject) => {
      const script = document.createElement("script");
      waiting[name] = resolve;
      script.onerror = () => reject(new Error(`models/${name}.js is missing beside this page`));
      script.onload = () => script.remove();
      script.src = `models/${name}.js`;
      document.head.append(script);
    });
    const text = atob(packed), found = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
    const stream = new Blob([found]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function runtime() {
    const [code, wasm] = [await bytes("ort.wasm.bundle.min.mjs"), await bytes("ort-wasm-simd-threaded.wasm")];
    ort = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    ort.env.wasm.numThreads = 1; // more need a server's headers
    ort.env.wasm.wasmBinary = wasm.buffer;
  }

  const once = (name, make) => (loads[name] ??= make());

  /** Have models ready; `say(done, all)` hears of each. */
  async function ready(names, say = () => {}) {
    const missing = names.filter((name) => !sessions[name]);
    let done = 0;
    if (missing.length) {
      say(done, missing.length + 1);
      await once("runtime", runtime);
    }
    for (const name of missing) {
      say(++done, missing.length + 1);
      await once(name, async () => (sessions[name] = await ort.InferenceSession.create(await bytes(name))));
    }
  }

  /** The outputs of a model, of inputs [values, shape]. */
  async function run(name, ...inputs) {
    const { [name]: session } = sessions, kinds = { Int32Array: "int32", Uint8Array: "uint8", Float32Array: "float32" };
    const tensors = inputs.map(([values, shape]) => new ort.Tensor(kinds[values.constructor.name], values, shape));
    const found = await session.run(Object.fromEntries(tensors.map((tensor, i) => [session.inputNames[i], tensor])));
    return session.outputNames.map((output) => found[output]);
  }

  const joined = (...parts) => {
    const found = new parts[0].constructor(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => (found.set(part, at), at + part.length), 0);
    return found;
  };

  const encoded = (texts) => [joined(...texts.map(tokenizer.ids)), [texts.length, tokenizer.length]];

  /** What the U-Net attends to: {own, empty, shape} of a prompt. */
  async function text(prompt) {
    const [states] = await run("text", encoded([prompt, ""])), half = states.data.length / 2;
    return { own: states.data.slice(0, half), empty: states.data.slice(half), shape: states.dims.slice(1) };
  }

  /** Latents before and after every step, of all pictures that `noise` holds. */
  async function* drawing(model, { own, empty, shape }, noise, { guidance, steps }) {
    const n = noise.length / about.latents.reduce((a, b) => a * b), guided = guidance > 1;
    const rows = guided ? 2 * n : n, solver = new Solver(steps);
    const words = joined(...Array.from({ length: rows }, (_, i) => (guided && i < n ? empty : own)));
    let x = noise;
    yield x;
    for (const time of solver.times) {
      const [{ data }] = await run(
        model,
        [guided ? joined(x, x) : x, [rows, ...about.latents]],
        [new Float32Array(rows).fill(time), [rows]],
        [words, [rows, ...shape]],
      );
      const free = data.subarray(0, x.length), told = data.subarray(data.length - x.length);
      x = solver.step(x, free.map((value, i) => value + guidance * (told[i] - value) * guided));
      yield x;
    }
  }

  /** uint8 pictures {data, side, count} of latents. */
  async function decode(latents) {
    const count = latents.length / about.latents.reduce((a, b) => a * b);
    const [{ data, dims }] = await run("decoder", [latents, [count, ...about.latents]]);
    return { data, side: dims[1], count };
  }

  const shaped = ({ data, side, count }) => [data, [count, side, side, 3]];
  const rowsOf = ({ data, dims: [n, width] }) => Array.from({ length: n }, (_, i) => data.slice(i * width, (i + 1) * width));

  /** What the judge reads: {attribute: value, confidence} of each picture. */
  async function read(pictures) {
    const logits = await run("judge", shaped(pictures)), names = Object.keys(about.classes);
    const heads = logits.map(rowsOf);
    return Array.from({ length: pictures.count }, (_, i) => {
      const found = { confidence: 1 };
      names.forEach((name, k) => {
        const row = heads[k][i], top = row.indexOf(Math.max(...row));
        found[name] = about.classes[name][top];
        found.confidence /= row.reduce((sum, value) => sum + Math.exp(value - row[top]), 0);
      });
      return found;
    });
  }

  const see = async (pictures) => rowsOf((await run("vision", shaped(pictures)))[0]);
  const speak = async (texts) => rowsOf((await run("words", encoded(texts)))[0]);

  /** The book's reward of image features, each for its text's. */
  async function reward(images, texts) {
    const shape = [images.length, images[0].length];
    return [...(await run("reward", [joined(...images), shape], [joined(...texts), shape]))[0].data];
  }

  return { bytes, decode, drawing, joined, ready, read, reward, see, speak, text };
})();
