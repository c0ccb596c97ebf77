"use strict";
// CLIP's tokenizer by the vocabulary and merges of about.js: the ids that Python's gives.

const tokenizer = (() => {
  const { vocab, merges, length, bos, eos, pad, unk } = about.tokenizer;
  const rank = new Map(merges.map((pair, i) => [pair.join(" "), i]));
  const SPECIAL = /(<\|startoftext\|>|<\|endoftext\|>)/;
  const CLIP = /<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu;
  const GPT2 = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}+|[^\s\p{L}\p{N}]+/gu;

  // every byte has a character that can be seen, as in GPT-2
  const plain = (b) => (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173;
  const letters = [];
  for (let b = 0, other = 256; b < 256; b++) letters.push(String.fromCharCode(plain(b) ? b : other++));

  function merged(word) {
    let parts = Array.from(new TextEncoder().encode(word), (b) => letters[b]);
    parts[parts.length - 1] += "</w>";
    parts = parts.map((part) => (part in vocab ? part : null)); // no merge has an unknown one
    for (;;) {
      let best = Infinity, at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const found = rank.get(`${parts[i]} ${parts[i + 1]}`);
        if (found < best) [best, at] = [found, i];
      }
      if (at < 0) return parts.map((part) => (part === null ? unk : vocab[part]));
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
  }

  function ids(text) {
    const found = [];
    for (const part of text.split(SPECIAL)) {
      if (SPECIAL.test(part)) found.push(vocab[part]);
      else {
        const small = Array.from(part.normalize("NFC").replace(/\s+/g, " "), (c) => c.toLowerCase()).join("");
        for (const piece of small.match(CLIP) ?? [])
          for (const word of piece.match(GPT2) ?? []) found.push(...merged(word));
      }
    }
    const whole = [bos, ...found.slice(0, length - 2), eos];
    return Int32Array.from({ length }, (_, i) => whole[i] ?? pad);
  }

  const known = new Set(about.vocabulary.words);
  /** The words of a text that no caption has had. */
  const unknown = (text) => [...new Set(text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [])].filter((w) => !known.has(w));

  return { ids, length, unknown };
})();
