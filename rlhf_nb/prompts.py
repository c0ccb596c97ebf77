"""The paper's prompt grammar: four categories, contrastive prompts that differ in one attribute, and honest splits.

Source: arXiv 2302.12192, section 4.1, tables 1 and 4. A prompt is its `Attributes`; the English is made from them.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

COUNTS = ("one", "two", "three", "four", "five", "six")
COLOURS = ("red", "yellow", "green", "blue", "black", "pink", "purple", "white", "brown")
BACKGROUNDS = ("in the forest", "in the city", "on the moon", "in the field", "in the sea", "on the table",
               "in the desert", "in San Francisco")
CATEGORIES = ("count", "colour", "background", "combination")
ATTRIBUTES = ("object", "count", "colour", "background")
DRAWING = 4  # the splits were drawn anew whenever settings had been measured on the prompts that wait for the final evaluation
_IRREGULAR = {"mouse": "mice", "wolf": "wolves", "box": "boxes"}


@dataclass(frozen=True)
class Vocabulary:
    """Objects of one world; `unseen` ones occur in pre-training but never in feedback or fine-tuning."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    @property
    def objects(self):
        return self.seen + self.unseen


TOY = Vocabulary(("airplane", "star", "heart", "umbrella", "horse", "flag", "castle", "cat"),
                 ("cloud", "flower", "diamond", "house"))
# Which five of the paper's objects are unseen is inferred from its figures (confidence C in the book's fact table).
PAPER = Vocabulary(("dog", "cat", "lion", "orange", "vase", "cup", "apple", "chair", "bird", "cake", "bicycle", "tree",
                    "donut", "box", "plate", "clock", "backpack", "car", "airplane", "horse"),
                   ("bear", "tiger", "wolf", "rabbit", "rose"))
VOCABULARIES = {"toy": TOY, "paper": PAPER}


@dataclass(frozen=True)
class Attributes:
    """What a prompt asks for; None means that the prompt does not say."""

    object: str
    count: int | None = None
    colour: str | None = None
    background: str | None = None

    @property
    def asked(self):
        """Names of the attributes that the prompt mentions besides its object."""
        return tuple(a for a in ATTRIBUTES[1:] if getattr(self, a) is not None)


def plural(noun):
    return _IRREGULAR.get(noun, noun + "s")


def article(word):
    return "an" if word[0] in "aeiou" else "a"


def phrase(want, style="paper"):
    """English for `want`. Style "paper" is the paper's grammar; "new" is a wording that feedback never contains."""
    number = want.count or 1
    noun = want.object if number == 1 else plural(want.object)
    if style == "new":
        parts = ["a picture of", COUNTS[number - 1] if want.count else article(noun), noun]
        if want.background:
            parts += [want.background]
        if want.colour:
            parts += ["that", "is" if number == 1 else "are", want.colour]
    elif want.colour and not want.count and not want.background:
        parts = [article(want.colour), want.colour, "colored", noun]
    else:
        parts = [COUNTS[number - 1] if want.count else article(want.colour or noun), want.colour, noun, want.background]
    text = " ".join(p for p in parts if p)
    return text[0].upper() + text[1:] + "."


def contrast(want, n, rng, objects, allowed=None):
    """`n` attribute sets, each differing from `want` in exactly one attribute it mentions (section 4.2), all of them in `allowed`.

    Every attribute is changed about equally often. Where `want` has fewer than `n` such neighbours they come again from the start.
    Raises ValueError where it has none.
    """
    choices = {"object": objects, "count": range(1, 7), "colour": COLOURS, "background": BACKGROUNDS}
    pools = [[replace(want, **{a: v}) for v in rng.permutation(np.array(choices[a], dtype=object)) if v != getattr(want, a)]
             for a in ("object", *want.asked)]
    pools = [[w for w in pool if allowed is None or w in allowed] for pool in pools]
    rng.shuffle(pools)
    turns = [pool[i] for i in range(max(map(len, pools))) for pool in pools if i < len(pool)]
    if not turns:
        raise ValueError(f"{phrase(want)!r} has no contrastive prompt among the allowed ones")
    return [turns[i % len(turns)] for i in range(n)]


def grammar(objects):
    """Every prompt of the paper's grammar over `objects`, as {category: [Attributes]}."""
    return {
        "count": [Attributes(o, count=n) for o in objects for n in range(1, 7)],
        "colour": [Attributes(o, colour=c) for o in objects for c in COLOURS],
        "background": [Attributes(o, background=b) for o in objects for b in BACKGROUNDS],
        "combination": [Attributes(o, n, c, b) for o in objects for n in range(1, 7) for c in COLOURS for b in BACKGROUNDS],
    }


def shuffled(vocabulary, seed):
    """All combinations of `vocabulary`, seen objects and unseen, in an order of `seed`'s: what scenes for an evaluation are rendered of."""
    return np.random.default_rng(seed).permutation(np.array(grammar(vocabulary.objects)["combination"], dtype=object))


def rare(want):
    """True for the combinations kept out of all feedback: one in six (colour, background) pairs, 12 of 72."""
    if want.colour is None or want.background is None:
        return False
    return (COLOURS.index(want.colour) * 5 + BACKGROUNDS.index(want.background)) % 6 == 1


def splits(vocabulary, seed=0, drawing=DRAWING):
    """The whole grammar divided once and for all: {category: {split: [Attributes]}}; a function of `seed` and `drawing`."""
    rng = np.random.default_rng([seed, drawing])
    known, fresh, divided = grammar(vocabulary.seen), grammar(vocabulary.unseen), {}
    for category in CATEGORIES:
        common = [w for w in known[category] if not rare(w)]
        order = [common[i] for i in rng.permutation(len(common))]
        a, b = round(0.2 * len(order)), round(0.3 * len(order))
        rares = [w for w in known[category] if rare(w)] or order[:a]  # simple prompts have no rare pair: only their wording is new
        divided[category] = {"seen": order[b:], "validation": order[a:b], "heldout": order[:a]} | {
            s: [pool[i] for i in rng.permutation(len(pool))] for s, pool in (("unseen", fresh[category]), ("ood", rares))}
    return divided


def looked_at(vocabulary):
    """Combinations on which settings of this book were measured under earlier drawings of the splits, for choosing or at the end: a set of `Attributes`.

    A drawing shuffles one grammar, so some of them wait for the final evaluation again. Measured were 200 validation prompts and 500 of each other split,
    all of the toy vocabulary.
    """
    drawn = [splits(TOY, 0, d)["combination"] for d in range(1, DRAWING if vocabulary is TOY else 1)]
    return {w for pools in drawn for split, n in (("validation", 200), ("heldout", 500), ("unseen", 500), ("ood", 500)) for w in pools[split][:n]}


def split_rows(vocabulary, labelled, tuned, evaluated, tested, seed=0):
    """Prompt rows for every split: dicts with prompt, category, split, novelty, use and the four attributes.

    split       holds                                                                    use
    seen        paper grammar, seen objects: all simple and `labelled` combinations      label (train on)
    validation  10 % of the same grammar: `tuned` combinations                           tune (choose settings)
    heldout     20 % of the same grammar, that no stage uses (the review's R1, R2)       evaluate, test
    unseen      the same templates with objects that feedback never contains             evaluate, test
    ood         rare colour-background pairs and a new wording                           evaluate, test

    Of each of the last three, `evaluated` combinations wait for the final evaluation and `tested` others measure the reward.
    Simple prompts are few: half go either way. A prompt's split depends on `seed` alone, not on the sizes asked for.
    """
    rows = []

    def add(wants, category, split, use, first=0):
        for i, want in enumerate(wants, first):
            # ood alternates a new wording with the paper's, so that any stretch of the list holds both kinds of novelty
            style = "new" if split == "ood" and (i % 2 or not rare(want)) else "paper"
            novelty = {"seen": "none", "validation": "prompt", "heldout": "prompt", "unseen": "object"}.get(split) or "+".join(
                k for k, on in (("pair", rare(want)), ("wording", style == "new")) if on)
            rows.append({"prompt": phrase(want, style), "category": category, "split": split, "novelty": novelty, "use": use, **asdict(want)})

    for category, pools in splits(vocabulary, seed).items():
        whole = category == "combination"
        add(pools["seen"][:labelled if whole else None], category, "seen", "label")
        add(pools["validation"][:tuned if whole else None], category, "validation", "tune")
        for split in ("heldout", "unseen", "ood"):
            pool = pools[split]
            cut = min(evaluated, len(pool)) if whole else len(pool) // 2
            add(pool[:cut], category, split, "evaluate")
            add(pool[cut:cut + tested], category, split, "test", cut)
    return rows


def attributes(row):
    """`Attributes` of one row of prompts.csv (empty cells and NaN mean: not asked)."""
    value = {a: None if row[a] in (None, "") or row[a] != row[a] else row[a] for a in ATTRIBUTES}
    return Attributes(value["object"], None if value["count"] is None else int(value["count"]), value["colour"], value["background"])


def wanted(table, settings):
    """The images that stage `generate` draws, a row each, from the prompt table: several of every labelled prompt, and others, with
    use = "test", of prompts that measure the reward and of a few seen ones again."""
    simple = table.category != "combination"
    label = table[table.use == "label"]
    label = label.loc[label.index.repeat(np.where(simple[label.index], settings.per_simple, settings.per_combination))]
    again = table[(table.use == "label") & ~simple].head(settings.test_seen).assign(use="test")
    test = pd.concat([again, table[table.use == "test"]], ignore_index=True)
    return pd.concat([label, test.loc[test.index.repeat(settings.per_test)]], ignore_index=True)
