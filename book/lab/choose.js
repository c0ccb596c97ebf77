"use strict";
// Part 3: the best of n of the base model against one picture of the tuned one.

const AT_ONCE = 4;
if (!about.learnt) $("by").options[0].text = "CLIP similarity";

/** Pictures of a model from several seeds, a few at once: {pictures of each batch, milliseconds}. */
async function several(model, seeds, { prompt, guidance, steps }, say) {
  const start = performance.now(), text = await engine.text(prompt), found = [];
  for (let i = 0; i < seeds.length; i += AT_ONCE) {
    const some = engine.joined(...seeds.slice(i, i + AT_ONCE).map(noise));
    let latents;
    for await (latents of engine.drawing(model, text, some, { guidance, steps })) await breathe();
    const pictures = await engine.decode(latents);
    (await measured(pictures, prompt)).forEach((of, k) => found.push({ ...of, pictures, k }));
    say(found.length);
  }
  return { found, took: performance.now() - start };
}

function card(model, title, { seen, reward, pictures, k }, wish, { found, took }) {
  const picture = canvas(`${title}: the judge reads ${told(seen)}`);
  paint(picture, pictures, k);
  const time = make("p", { class: "status" }, `${found.length === 1 ? "one picture" : `${found.length} pictures`} drawn in ${seconds(took)}`);
  return make("div", { class: model }, make("h3", {}, title), picture, reading(wish, seen, reward), time);
}

async function chooseBest() {
  const { seed, ...how } = asked(), n = Number($("n").value), wish = prompts.wish(how.prompt), status = $("choose-status");
  await load(DRAWING);
  $("rivals").replaceChildren();
  $("among").replaceChildren();
  const seeds = Array.from({ length: n }, (_, i) => seed + i);
  const base = await several("base", seeds, how, (done) => (status.textContent = `Drawn ${done} of ${n}`));
  const yours = $("by").value === "yours" && desk.head;
  for (const of of base.found) of.score = yours ? desk.head.scores([of.feature], [of.text])[0] : of.reward;
  const best = base.found.reduce((a, b) => (b.score > a.score ? b : a));
  $("rivals").append(card("base", `Best of ${n}`, best, wish, base));
  if (tuned) {
    const one = await several("tuned", [seed], how, () => {});
    $("rivals").append(card("tuned", TITLES.tuned, one.found[0], wish, one));
  } else $("rivals").append(notice());
  $("among-title").textContent = `The ${n} to choose among`;
  $("among-title").hidden = false;
  base.found.forEach((of) => {
    const picture = canvas(`The judge reads ${told(of.seen)}`), hit = right(wish, of.seen);
    paint(picture, of.pictures, of.k);
    const mark = make("b", { class: hit ? "yes" : "no" }, hit ? "✓" : "✗");
    $("among").append(make("li", of === best ? { class: "chosen" } : {}, picture, mark, " ", make("b", {}, fixed(of.score)), of === best ? " chosen" : ""));
  });
  const hits = base.found.filter((of) => right(wish, of.seen)).length;
  status.textContent = `By the judge ${hits} of the ${n} are entirely right, the chosen one ${right(wish, best.seen) ? "is" : "is not"}. A single prompt proves nothing: the chapter on best of n has the numbers.`;
}

$("choose-form").addEventListener("submit", (event) => {
  event.preventDefault();
  working($("choose-status"), chooseBest);
});
