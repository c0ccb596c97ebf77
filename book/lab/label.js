"use strict";
// Part 2: twelve judgements, how far they agree with others', and the reward that learns from them.

const TWELVE = 12;
const desk = { pool: null, gallery: null, labels: [], until: TWELVE, head: null };

async function pixels(png) {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const side = image.width, sheet = make("canvas", { width: side, height: side }).getContext("2d", { willReadFrequently: true });
  sheet.drawImage(image, 0, 0);
  const { data } = sheet.getImageData(0, 0, side, side);
  return { data: Uint8Array.from({ length: side * side * 3 }, (_, k) => data[4 * Math.floor(k / 3) + (k % 3)]), side, count: 1 };
}

/** Give pictures their features and the judge's reading. */
async function seen(pictures) {
  const each = await Promise.all(pictures.map(({ png }) => pixels(png)));
  const all = { data: engine.joined(...each.map(({ data }) => data)), side: each[0].side, count: each.length };
  const [features, read] = [await engine.see(all), await engine.read(all)];
  return pictures.map((picture, i) => ({ ...picture, prompt: picture.sentences[0], feature: features[i], read: read[i] }));
}

async function begin() {
  await load(["vision", "words", "reward", "judge"]);
  if (!desk.pool) {
    const found = JSON.parse(new TextDecoder().decode(await engine.bytes("pictures")));
    desk.pool = await seen(found.pool);
    desk.gallery = await seen(found.gallery);
  }
  Object.assign(desk, { labels: [], until: TWELVE });
  present();
}

/** Show the next picture, or what the labels say. */
function present() {
  const at = desk.labels.length, ask = at < desk.until, picture = desk.pool[at];
  $("label-start").hidden = true;
  $("desk").hidden = !ask;
  $("label-result").hidden = ask;
  if (!ask) return working($("label-status"), conclude);
  $("label-picture").src = `data:image/png;base64,${picture.png}`;
  $("label-picture").alt = `Picture ${at + 1}: the judge reads ${told(picture.read)}`;
  $("label-prompt").textContent = picture.prompt;
  $("label-count").textContent = `Picture ${at + 1} of ${desk.until}`;
}

function answer(good) {
  if ($("desk").hidden || $("good").disabled) return;
  desk.labels.push(good);
  present();
}

function undo() {
  if ($("desk").hidden || !desk.labels.length) return;
  desk.labels.pop();
  present();
}

$("good").addEventListener("click", () => answer(true));
$("bad").addEventListener("click", () => answer(false));
$("undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input, select, textarea")) return;
  ({ g: () => answer(true), b: () => answer(false), u: undo })[event.key.toLowerCase()]?.();
});

/** A line for each other: how far the reader agrees with them. */
function agreements() {
  const rows = [["the panel", "panel"], ["the judge", "judge"]].map(([who, name]) => {
    const { agreed, n, kappa: value, low, high } = kappa(desk.labels, desk.pool.slice(0, desk.labels.length).map((of) => of[name]));
    const said = Number.isFinite(value) ? `${fixed(value)} [${fixed(low)}, ${fixed(high)}]` : "cannot be told: all labels are alike";
    return make("tr", {}, make("th", { scope: "row" }, who), make("td", {}, `${agreed} of ${n}`), make("td", {}, said));
  });
  const heads = ["you and", "agree on", "kappa [95 % interval]"].map((text) => make("th", { scope: "col" }, text));
  const why = `Kappa is agreement beyond chance: 1 is perfect, 0 what two would reach by guessing. ${desk.labels.length} pictures leave a wide interval.`;
  $("agreement").replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows)), make("p", { class: "status" }, why));
}

/** What a head learns from: features, candidates as places among all sentences, labels. */
async function lessons() {
  const pool = desk.pool.slice(0, desk.labels.length), sentences = [...new Set(pool.flatMap((of) => of.sentences))];
  const candidates = pool.map((of) => of.sentences.map((text) => sentences.indexOf(text)));
  return { images: pool.map((of) => of.feature), texts: await engine.speak(sentences), candidates, labels: desk.labels.map(Number) };
}

function curve(rows) {
  const colours = { mse: "var(--accent)", pc: "var(--soft)" }, updates = about.learning.updates;
  const lines = Object.keys(colours).map((name) => {
    const top = Math.max(...rows.map((row) => row[name])) || 1;
    const points = rows.map((row) => `${(8 + (230 * row.step) / updates).toFixed(1)} ${(88 - (76 * row[name]) / top).toFixed(1)}`);
    const end = points.at(-1).split(" "), label = { mse: "L_MSE", pc: "L_pc" }[name];
    return `<path d="M${points.join("L")}" stroke="${colours[name]}"/><text x="${Number(end[0]) + 4}" y="${Number(end[1]) + 3}">${label} ${fixed(rows.at(-1)[name])}</text>`;
  });
  $("curve").innerHTML = `<line x1="8" y1="88" x2="238" y2="88"/>${lines.join("")}<text x="8" y="98">step 0</text><text x="238" y="98" text-anchor="end">${updates}</text>`;
}

async function conclude() {
  agreements();
  $("label-result").focus({ preventScroll: true });
  const start = performance.now(), data = await lessons(), { hidden } = about.learning, rows = [];
  desk.head = new Head(data.images[0].length, hidden);
  for (const row of training(desk.head, data, about.learning)) {
    rows.push(row);
    $("training").textContent = `Training: step ${row.step} of ${about.learning.updates}`;
    curve(rows);
    await breathe();
  }
  const good = desk.labels.filter(Boolean).length;
  $("training").textContent = `Trained on your ${desk.labels.length} labels (${good} good) with both losses in ${seconds(performance.now() - start)}: is it good (L_MSE), and to which of eight sentences does a good picture belong (L_pc)?`;
  await rank();
  Object.assign($("by").options[1], { disabled: false, text: "yours" });
  $("more").hidden = desk.labels.length + TWELVE > desk.pool.length;
}

/** The gallery as both rewards rank it. */
async function rank() {
  const { gallery, head } = desk, texts = await engine.speak(gallery.map((of) => of.prompt)), images = gallery.map((of) => of.feature);
  const scores = { yours: head.scores(images, texts), book: await engine.reward(images, texts) }, panel = gallery.map((of) => of.panel);
  desk.scores = scores;
  const book = about.learnt ? "The book’s reward" : "CLIP similarity";
  const columns = Object.entries({ yours: "Your reward", book }).map(([name, title]) => {
    const order = gallery.map((_, i) => i).sort((i, k) => scores[name][k] - scores[name][i]);
    const right = `${Math.round(100 * inOrder(scores[name], panel))} % of pairs of a good and a bad picture in order`;
    return make("div", {}, make("h4", {}, title), make("p", { class: "status" }, right),
      make("h5", {}, "its best"), sheet(order.slice(0, 6), scores[name]), make("h5", {}, "its worst"), sheet(order.slice(-6), scores[name]));
  });
  const alike = fixed(spearman(scores.yours, scores.book)), of = about.labels?.toLocaleString("en");
  const words = `${gallery.length} pictures of prompts that no reward learnt from, half of them good by the panel, whose ✓ and ✗ stand below. The two rankings correlate by ${alike} (Spearman).`;
  const few = of ? ` Yours has ${desk.labels.length} labels, the book’s had ${of}: a coin would put 50 % of the pairs in order.` : "";
  $("ranking").replaceChildren(make("h3", {}, "A gallery, ranked by it"), make("p", {}, words + few), make("div", { class: "sides" }, ...columns));
}

function sheet(order, scores) {
  return make("ol", { class: "sheet" }, ...order.map((i) => {
    const { png, prompt, panel, read } = desk.gallery[i];
    const picture = make("img", { class: "picture", src: `data:image/png;base64,${png}`, alt: `The judge reads ${told(read)}` });
    const mark = make("b", { class: panel ? "yes" : "no", title: panel ? "good, says the panel" : "bad, says the panel" }, panel ? "✓" : "✗");
    return make("li", {}, picture, mark, " ", make("b", {}, fixed(scores[i])), ` ${prompt}`);
  }));
}

if ("pictures" in about.sizes) {
  for (const name of ["label-button", "restart"])
    $(name).addEventListener("click", async () => {
      await working($("label-status"), begin);
      $("good").focus({ preventScroll: true });
    });
  $("more").addEventListener("click", () => {
    desk.until = desk.labels.length + TWELVE;
    present();
    $("good").focus({ preventScroll: true });
  });
} else {
  $("label-start").replaceChildren(make("p", { class: "notice" }, "There are no labelled pictures in this build of the book: the run that made it had not finished its feedback."));
}
