"use strict";
// Light or dark as the reader chose in the book; else as the system has it.
try {
  const theme = localStorage.getItem("mode") === "auto" ? "" : localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* a browser that keeps nothing */ }
