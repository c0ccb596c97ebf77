"use strict";
// Part 1: base and tuned model side by side, from the same noise.

const asked = () => ({
  prompt: $("prompt").value.trim(),
  seed: Math.max(0, Math.floor(Number($("seed").value) || 0)),
  guidance: Number($("guidance").value),
  steps: Number($("steps").value),
});
const noise = (seed) => normal(seed, about.latents.reduce((a, b) => a * b));

const sides = ["base", ...(tuned ? ["tuned"] : [])].map((model) => {
  const picture = canvas(`${TITLES[model]}: nothing drawn yet`), below = make("div");
  $("pair").append(make("div", { class: model }, make("h3", {}, TITLES[model]), picture, below));
  return { model, picture, below, film: [] };
});
if (!tuned) $("pair").append(notice());

const MENUS = { count: "any number", colour: "any colour", object: "in your own words", background: "anywhere" };
for (const [name, any] of Object.entries(MENUS)) {
  const values = about.vocabulary[name], of = (text) => (name === "count" ? values.indexOf(text) + 1 : text);
  $(name).append(new Option(any, ""));
  for (const text of values) $(name).append(new Option(text, of(text)));
  $(name).addEventListener("change", () => {
    const wish = Object.fromEntries(Object.keys(MENUS).map((menu) => [menu, $(menu).value]));
    say(prompts.phrase({ ...wish, count: Number(wish.count), object: wish.object || about.vocabulary.object[0] }));
  });
}

/** Take a prompt: menus and warning follow. */
function say(text) {
  if ($("prompt").value !== text) $("prompt").value = text;
  const wish = prompts.wish(text), strange = tokenizer.unknown(text);
  for (const name of Object.keys(MENUS)) $(name).value = wish[name] ?? "";
  const words = strange.map((word) => `“${word}”`).join(", ");
  $("unknown").textContent = !text.trim()
    ? "The prompt is empty: the model draws whatever it likes."
    : strange.length
      ? `The model does not know ${words}: no caption it learnt from had ${strange.length > 1 ? "these words" : "this word"}.`
      : "";
  $("unknown").classList.toggle("warn", strange.length > 0);
  $("choose-prompt").textContent = text;
}

$("prompt").addEventListener("input", () => say($("prompt").value));
for (const name of ["guidance", "steps"]) {
  $(name).value = about[name];
  const show = () => ($(`${name}-value`).textContent = name === "guidance" && $(name).value === "1" ? "1, none" : $(name).value);
  $(name).addEventListener("input", show);
  show();
}
$("object").options[0].disabled = true; // a menu's prompt has an object
say(prompts.phrase({ count: 2, colour: "green", object: "cat", background: about.vocabulary.background[0] }));

/** Draw with both models in step; every step is shown. */
async function drawPair() {
  const { prompt, seed, guidance, steps } = asked(), status = $("draw-status"), wish = prompts.wish(prompt);
  await load(DRAWING);
  const start = performance.now(), text = await engine.text(prompt);
  let shownFor = 0;
  for (const side of sides) {
    side.frames = engine.drawing(side.model, text, noise(seed), { guidance, steps });
    side.film = [];
    side.below.replaceChildren();
    side.picture.setAttribute("aria-label", `${TITLES[side.model]} is drawing: ${prompt}`);
  }
  $("replay").hidden = true;
  for (let step = 0; step <= steps; step++) {
    const latents = [];
    for (const side of sides) latents.push((await side.frames.next()).value);
    const before = performance.now(), pictures = await engine.decode(engine.joined(...latents));
    sides.forEach((side, i) => {
      side.film.push({ pictures, i });
      paint(side.picture, pictures, i);
    });
    status.textContent = `Step ${step} of ${steps}`;
    await breathe();
    if (step < steps) shownFor += performance.now() - before;
  }
  const took = performance.now() - start;
  const last = sides[0].film.at(-1).pictures, found = await measured(last, prompt);
  sides.forEach((side, i) => {
    side.below.replaceChildren(reading(wish, found[i].seen, found[i].reward));
    side.picture.setAttribute("aria-label", `${TITLES[side.model]}, asked for: ${prompt} The judge reads ${told(found[i].seen)}.`);
  });
  Object.assign($("replay-step"), { max: steps, value: steps });
  $("replay-value").textContent = `step ${steps} of ${steps}`;
  $("replay").hidden = false;
  const what = sides.length > 1 ? "Both pictures" : "The picture";
  status.textContent = `${what} took ${seconds(took)}, of which showing every step ${seconds(shownFor)}. Asked for: “${prompt}”`;
  document.body.dataset.drawing = took - shownFor;
}

$("replay-step").addEventListener("input", () => {
  const step = Number($("replay-step").value);
  sides.forEach((side) => paint(side.picture, side.film[step].pictures, side.film[step].i));
  $("replay-value").textContent = `step ${step} of ${$("replay-step").max}`;
});
$("draw-form").addEventListener("submit", (event) => {
  event.preventDefault();
  working($("draw-status"), drawPair);
});
$("again").addEventListener("click", () => {
  $("seed").value = asked().seed + 1;
  working($("draw-status"), drawPair);
});
