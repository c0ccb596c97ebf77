// One page as paper has it: sliders become their first and last picture, addresses those within the book.
async (slug) => {
  const article = document.querySelector("article.bd-article");
  const still = (picture) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
    canvas.getContext("2d").drawImage(picture, 0, 0);
    return canvas.toDataURL();
  };
  const shown = (box) => {
    const picture = [...box.querySelectorAll("img.widget-image")].find((of) => of.checkVisibility());
    const label = [...box.querySelectorAll(".widget-label")].filter((of) => of.checkVisibility()).at(-1);
    return { source: still(picture), words: label?.textContent || "", alt: picture.alt };
  };
  for (const slider of article.querySelectorAll(".widget-slider .noUi-handle")) {
    let box = slider.closest(".widget-vbox");
    if (!box?.querySelector("img.widget-image")) continue;
    const frames = [shown(box)];
    slider.focus();
    slider.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
    await new Promise((done) => setTimeout(done, 500));
    frames.push(shown(box));
    const made = document.createElement("div");
    for (const frame of frames) {
      const picture = Object.assign(new Image(), { src: frame.source, alt: frame.alt });
      const words = document.createElement("p");
      words.textContent = frame.words;
      made.append(words, picture);
    }
    box.replaceWith(made);
  }
  for (const picture of article.querySelectorAll("img")) {
    if (picture.src.startsWith("blob:")) picture.src = still(picture);
    picture.setAttribute("src", picture.src);  // whole address
    picture.removeAttribute("srcset");
  }
  const within = (url) => decodeURIComponent(url.pathname.slice(1).replace(/\.html$/, "")).replaceAll("/", "-") || "index";
  for (const link of article.querySelectorAll("a[href]")) {
    const url = new URL(link.getAttribute("href"), location.href);
    if (url.origin !== location.origin) continue;
    if (!url.pathname.endsWith(".html") || url.pathname.startsWith("/lab/")) { link.removeAttribute("href"); continue; }
    link.setAttribute("href", `#${within(url)}${url.hash ? `--${url.hash.slice(1)}` : ""}`);
  }
  for (const of of article.querySelectorAll("[id]")) if (!of.closest("mjx-container")) of.id = `${slug}--${of.id}`;
  article.id = slug;
  for (const of of article.querySelectorAll("script, .headerlink, .copybtn, .play")) of.remove();
  const sheet = document.querySelector("#MJX-CHTML-styles");
  const rules = sheet ? [...sheet.sheet.cssRules].map((rule) => rule.cssText).join("\n") : "";
  return { html: article.outerHTML, rules };
}
