"use strict";
// Names for what has none: pictures of sliders, the sliders themselves, and the buttons that copy code.
(() => {
  const words = (of) => (of?.textContent || "").replace(/#$/, "").replace(/\s+/g, " ").trim();
  const named = () => {
    for (const button of document.querySelectorAll(".copybtn:not([aria-label])")) button.setAttribute("aria-label", "Copy this code");
    for (const picture of document.querySelectorAll("img.widget-image:not([alt])")) {
      const cell = picture.closest(".cell, figure");
      picture.alt = words(cell?.querySelector("figcaption .caption-text, figcaption")) || "The picture that the slider has chosen";
    }
    for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
      const label = words(handle.closest(".widget-slider")?.querySelector(".widget-label"));
      handle.setAttribute("aria-label", label || "Choose a picture");
    }
    for (const button of document.querySelectorAll(".widget-play button:not([aria-label])")) {
      const icon = button.querySelector("[class*=fa-]")?.getAttribute("class") || "";
      const kind = ["pause", "play", "stop", "repeat"].find((one) => icon.includes(one)) || "retweet";
      button.setAttribute("aria-label", { pause: "Pause", play: "Play", stop: "Stop" }[kind] || "Repeat");
    }
    for (const of of document.querySelectorAll("input[type=checkbox].sidebar-toggle, .bd-links input:not([aria-label])")) of.setAttribute("aria-label", "Open this part");
  };
  // From noise to picture: a slider of the reader's own, or by itself.
  const moving = (figure) => {
    const [slider, button] = [figure.querySelector("input"), figure.querySelector("button")], last = Number(slider.max);
    const show = (step) => { slider.value = step; figure.style.setProperty("--step", step); };
    let timer = 0;
    const stop = () => { clearInterval(timer); timer = 0; button.textContent = "Play"; };
    const play = () => {
      let tick = Number(slider.value) < last ? Number(slider.value) : -1;
      button.textContent = "Pause";
      timer = setInterval(() => { tick = tick >= last + 12 ? 0 : tick + 1; show(Math.min(tick, last)); }, 260);
    };
    slider.addEventListener("input", () => { stop(); show(slider.value); });
    button.addEventListener("click", () => timer ? stop() : play());
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();
    addEventListener("beforeprint", () => { stop(); show(last); });
  };
  addEventListener("DOMContentLoaded", () => {
    if (window.MathJax) window.MathJax.Hub ??= { Queue() {} };  // what the widgets ask of an older MathJax
    named();
    new MutationObserver(named).observe(document.body, { childList: true, subtree: true });
    document.querySelectorAll(".before-after").forEach(moving);
  });
})();
