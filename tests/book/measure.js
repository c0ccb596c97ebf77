// What a page has of its budgets; run by budgets.py in the page.
(seenPart) => {
  const article = document.querySelector("article.bd-article, main");
  const all = (of, within = article) => [...within.querySelectorAll(of)];
  const seen = (of) => of.checkVisibility() && of.getClientRects().length > 0;
  const words = (text) => (text.trim().match(/\S+/g) || []).length;
  const code = all("pre").filter((of) => !of.closest(".output.stream, .output.text_plain, .traceback"));
  const lines = (of) => of.textContent.replace(/\n$/, "").split("\n").length;
  const tables = all("table").filter(seen).map((of) => {
    const rows = [...of.querySelectorAll("tbody tr")];
    return [rows.length, Math.max(0, ...rows.map((row) => row.cells.length))];
  });
  const pictures = all("img, svg, canvas, [role=img]").filter((of) => !of.closest("mjx-container, button, a.headerlink, summary"));
  const shown = pictures.filter(seen).map((of) => of.getBoundingClientRect()).filter((of) => of.width >= 64 && of.height >= 64);
  const first = shown.map((of) => of.top + scrollY + Math.min(of.height, seenPart));
  for (const of of all("details")) of.open = true;  // what is folded must be right, too
  const wrapped = code.filter((of) => of.checkVisibility()).filter((of) => {
    const before = of.style.whiteSpace;
    of.style.whiteSpace = "pre";
    const over = of.scrollWidth > of.clientWidth + 1;
    of.style.whiteSpace = before;
    return over;
  });
  const told = (of) => {
    if (of.tagName === "IMG") return (of.alt || of.getAttribute("aria-label") || "").trim();
    return (of.getAttribute("aria-label") || of.querySelector("title")?.textContent || "").trim();
  };
  const silent = pictures.filter((of) => !of.closest("[aria-hidden=true], [hidden]") && !of.parentElement.closest("[role=img]"))
    .filter((of) => !told(of) || /\.(png|svg|jpe?g|webp)$/.test(told(of)));
  const name = (of) => [
    of.getAttribute("aria-label"), of.title, of.innerText ?? of.textContent, of.alt, of.placeholder,
    ...(of.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent),
    ...[...(of.labels || [])].map((label) => label.textContent), of.querySelector?.("[alt]")?.alt,
  ].join("").trim();
  const controls = all("button, input:not([type=hidden]), select, textarea, summary, a[href], [role=slider], [role=button]", document)
    .filter((of) => !of.closest("[aria-hidden=true]") && of.checkVisibility());
  const images = all("img", document).map((of) => of.currentSrc || of.src).filter((of) => !of.startsWith("data:"));
  return {
    code: code.filter((of) => !of.closest("details")).map(lines).reduce((a, b) => a + b, 0),
    tables, first: first.length ? Math.min(...first) : null,
    paragraph: Math.max(0, ...all("p").map((of) => words(of.innerText))),
    words: words(article.innerText),
    wrapped: wrapped.map((of) => of.textContent.split("\n").reduce((a, b) => a.length > b.length ? a : b)),
    silent: silent.map((of) => of.outerHTML.slice(0, 150)),
    nameless: controls.filter((of) => !name(of)).map((of) => of.outerHTML.slice(0, 150)),
    images: [...new Set(images)],
  };
}
