"use strict";
// The paper's grammar: a wish {count, colour, object, background} in English, and what a sentence asks for.

const prompts = (() => {
  const { count: COUNTS, colour: COLOURS, object: OBJECTS, background: BACKGROUNDS, plural } = about.vocabulary;
  const article = (word) => ("aeiou".includes(word[0]) ? "an" : "a");

  function phrase({ count, colour, object, background }) {
    const colored = colour && !count && !background ? "colored" : "";
    const first = count ? COUNTS[count - 1] : article(colour || object);
    const text = [first, colour, colored, count > 1 ? plural[object] : object, background].filter(Boolean).join(" ");
    return `${text[0].toUpperCase()}${text.slice(1)}.`;
  }

  /** What a sentence asks for, by the words it has; an attribute that it does not name is missing. */
  function wish(text) {
    const words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [], has = (word) => words.includes(word);
    const said = ` ${words.join(" ")} `, found = {};
    const count = COUNTS.findIndex(has) + 1;
    if (count) found.count = count;
    found.colour = COLOURS.find(has);
    found.object = OBJECTS.find((noun) => has(noun) || has(plural[noun]));
    found.background = BACKGROUNDS.find((place) => said.includes(` ${place.toLowerCase()} `));
    return Object.fromEntries(Object.entries(found).filter(([, value]) => value));
  }

  return { phrase, wish };
})();
