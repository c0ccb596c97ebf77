"use strict";
// What the three parts share: elements, pictures, the judge's reading, loading with its time.

const $ = (id) => document.getElementById(id);
const tuned = "tuned" in about.sizes;
const breathe = () => new Promise((resolve) => setTimeout(resolve)); // the browser paints between two steps
const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
const megabytes = (names) => (names.reduce((sum, name) => sum + (about.sizes[name] ?? 0), 0) / 1e6).toFixed(0);
const RUNTIME = ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"];
const DRAWING = ["text", "base", ...(tuned ? ["tuned"] : []), "decoder", "judge", "vision", "words", "reward"];
const TITLES = { base: "Base model", tuned: "Tuned model" };
const fixed = (value) => value.toFixed(2).replace("-", "−");

/** An element with attributes and children. */
function make(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.append(...children);
  return found;
}

/** Do work that a button starts; while it lasts every button that starts any waits, and what goes wrong is said. */
async function working(status, work) {
  const buttons = [...document.querySelectorAll("button")].filter((button) => !button.disabled), focus = document.activeElement;
  buttons.forEach((button) => (button.disabled = true));
  status.classList.remove("warn");
  try {
    await work();
  } catch (error) {
    status.classList.add("warn");
    status.textContent = `This did not work: ${error.message}.`;
  } finally {
    buttons.forEach((button) => (button.disabled = false));
    if (document.activeElement === document.body) focus?.focus({ preventScroll: true });
  }
}

/** Have the models of a part ready; says how long loading took. */
async function load(names) {
  const start = performance.now();
  let loaded = false;
  await engine.ready(names, (done, all) => {
    loaded = true;
    $("loading").textContent = `Loading the models: ${done} of ${all} …`;
  });
  if (loaded) {
    $("loading").textContent = `Models loaded in ${seconds(performance.now() - start)}.`;
    document.body.dataset.loading = performance.now() - start;
  }
}

/** Put picture i of {data, side} on a canvas. */
function paint(canvas, { data, side }, i = 0) {
  const found = new ImageData(side, side), from = i * side * side * 3;
  for (let k = 0; k < side * side; k++) {
    for (let c = 0; c < 3; c++) found.data[4 * k + c] = data[from + 3 * k + c];
    found.data[4 * k + 3] = 255;
  }
  canvas.width = canvas.height = side;
  canvas.getContext("2d").putImageData(found, 0, 0);
}

const canvas = (label) => make("canvas", { class: "picture", role: "img", "aria-label": label });

const NUMBERS = ["none", ...about.vocabulary.count, "seven", "eight"];
const shown = (name, value) => (name === "count" ? NUMBERS[value] : value);
const ASPECTS = { count: "number", colour: "colour", object: "object", background: "place" };
const right = (wish, seen) => Object.keys(wish).every((name) => wish[name] === seen[name]);
const told = (seen) => Object.keys(ASPECTS).map((name) => `${ASPECTS[name]} ${shown(name, seen[name])}`).join(", ");

/** What the judge reads, as a list: with marks where the prompt asks for something. */
function reading(wish, seen, reward) {
  const rows = Object.entries(ASPECTS).map(([name, title]) => {
    const asked = name in wish, hit = wish[name] === seen[name];
    const mark = make("b", { class: `mark ${hit ? "yes" : "no"}` }, asked ? (hit ? "✓" : "✗") : "");
    if (asked) mark.append(make("i", { class: "hidden" }, hit ? "right: " : "wrong: "));
    return make("li", {}, mark, make("span", {}, title), shown(name, seen[name]));
  });
  const percent = Math.round(100 * seen.confidence), score = ` · ${about.learnt ? "reward" : "CLIP similarity"} ${fixed(reward)}`;
  return make("ul", { class: "reading", "aria-label": "What the judge reads" }, ...rows, make("li", { class: "sum" }, `judge ${percent} % sure${score}`));
}

/** Judge's reading and reward of pictures of one prompt: a list of {seen, reward, feature}. */
async function measured(pictures, prompt) {
  const [seen, features, [text]] = [await engine.read(pictures), await engine.see(pictures), await engine.speak([prompt])];
  const rewards = await engine.reward(features, features.map(() => text));
  return seen.map((of, i) => ({ seen: of, reward: rewards[i], feature: features[i], text }));
}

const notice = () => make("p", { class: "notice" }, "There is no tuned model in this build of the book: the run that made it had not finished its alignment, and none is shipped. So only the base model draws.");

if (about.updates) $("updates").textContent = ` in ${about.updates.toLocaleString("en")} updates`;
$("weight").textContent = `the models (${megabytes([...RUNTIME, ...DRAWING])} MB), which takes some seconds`;
