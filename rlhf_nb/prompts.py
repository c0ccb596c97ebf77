"""The paper's prompt grammar: four categories, prompts that differ in one attribute, and honest splits.

Source: arXiv 2302.12192, section 4.1, tables 1 and 4. A prompt is its `Attributes`; they make the English.
"""

from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice, product, zip_longest

import numpy as np
import pandas as pd

from .config import ConfigError, shown
from .files import ArtifactError, read_table


def _words(text):
    return tuple(text.split())


COUNTS = _words("one two three four five six")
COLOURS = _words("red yellow green blue black pink purple white brown")
BACKGROUNDS = (
    "in the forest",
    "in the city",
    "on the moon",
    "in the field",
    "in the sea",
    "on the table",
    "in the desert",
    "in San Francisco",
)
VALUES = {"count": range(1, 7), "colour": COLOURS, "background": BACKGROUNDS}
CATEGORIES = (*VALUES, "combination")
ATTRIBUTES = ("object", *VALUES)
COLUMNS = _words("prompt category split novelty use")
# Splits were drawn anew whenever settings had been measured on prompts that wait for the final evaluation.
DRAWING = 5
IRREGULAR = {"mouse": "mice", "wolf": "wolves", "box": "boxes"}
NOVELTY = {"seen": "none", "validation": "prompt", "heldout": "prompt", "unseen": "object"}


@dataclass(frozen=True)
class Vocabulary:
    """Objects of one world; `unseen` ones occur in pre-training but never in feedback or fine-tuning."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    @property
    def objects(self):
        return self.seen + self.unseen


TOY = Vocabulary(
    _words("airplane star heart umbrella horse flag castle cat"),
    _words("cloud flower diamond house"),
)
# Which five of the paper's objects are unseen is inferred from its figures.
PAPER = Vocabulary(
    _words(
        "dog cat lion orange vase cup apple chair bird cake bicycle tree donut box plate clock backpack car "
        "airplane horse"
    ),
    _words("bear tiger wolf rabbit rose"),
)
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
        return tuple(a for a in VALUES if getattr(self, a) is not None)


def plural(noun):
    """English plural of an object's name."""
    return IRREGULAR.get(noun, noun + "s")


def article(word):
    """Indefinite article of `word`."""
    return "an" if word[0] in "aeiou" else "a"


def sentence(*parts):
    """The words that are there, as a sentence."""
    text = " ".join(filter(None, parts))
    return f"{text[0].upper()}{text[1:]}."


def phrase(want, reworded=False):
    """English for `want`: the paper's grammar, or reworded as feedback never has it; a sentence stays."""
    if isinstance(want, str):
        return want
    many = (want.count or 1) > 1
    noun = plural(want.object) if many else want.object
    number = COUNTS[want.count - 1] if want.count else None
    if reworded:
        verb = "are" if many else "is"
        colour = want.colour and f"that {verb} {want.colour}"
        return sentence("a picture of", number or article(noun), noun, want.background, colour)
    colored = "colored" if want.asked == ("colour",) else None
    first = number or article(want.colour or noun)
    return sentence(first, want.colour, colored, noun, want.background)


def _shuffled(things, rng):
    return [things[i] for i in rng.permutation(len(things))]


def contrast(want, n, rng, objects, allowed=None):
    """`n` attribute sets, each differing from `want` in one attribute it mentions (section 4.2), all in
    `allowed`.

    Every attribute is changed about equally often. Where `want` has fewer than `n` such neighbours they come
    again from the start. Of a sentence outside the grammar the other ones in `allowed` are the neighbours, of
    an only one all that is allowed. Raises ValueError where there is none.
    """
    if isinstance(want, str):
        others = {other for other in allowed if isinstance(other, str)} - {want} or allowed - {want}
        pools = [_shuffled(sorted(map(phrase, others)), rng)]
    else:
        choices, pools = {"object": objects, **VALUES}, []
        for a in ("object", *want.asked):
            others = [replace(want, **{a: value}) for value in _shuffled(choices[a], rng)]
            pools.append([o for o in others if o != want and (allowed is None or o in allowed)])
        rng.shuffle(pools)
    turns = [other for turn in zip_longest(*pools) for other in turn if other]
    if not turns:
        raise ValueError(f"{phrase(want)!r} has no contrastive prompt among the allowed ones")
    return list(islice(cycle(turns), n))


def grammar(objects):
    """Every prompt of the paper's grammar over `objects`, as {category: [Attributes]}."""
    simple = {a: [Attributes(o, **{a: v}) for o, v in product(objects, VALUES[a])] for a in VALUES}
    return simple | {"combination": [Attributes(*values) for values in product(objects, *VALUES.values())]}


def shuffled(vocabulary, seed):
    """All combinations of `vocabulary`, seen objects and unseen, in an order of `seed`'s, to render."""
    return _shuffled(grammar(vocabulary.objects)["combination"], np.random.default_rng(seed))


def rare(want):
    """True for the combinations kept out of all feedback: one in six (colour, background) pairs, 12 of 72."""
    if want.colour is None or want.background is None:
        return False
    return (COLOURS.index(want.colour) * 5 + BACKGROUNDS.index(want.background)) % 6 == 1


def splits(vocabulary, seed=0, drawing=DRAWING):
    """The whole grammar divided by `seed` and `drawing` alone: {category: {split: [Attributes]}}."""
    rng = np.random.default_rng([seed, drawing])
    fresh = grammar(vocabulary.unseen)
    divided = {}
    for category, known in grammar(vocabulary.seen).items():
        order = _shuffled([w for w in known if not rare(w)], rng)
        a, b = round(0.2 * len(order)), round(0.3 * len(order))
        rares = [w for w in known if rare(w)]
        divided[category] = {
            "seen": order[b:],
            "validation": order[a:b],
            "heldout": order[:a],
            "unseen": _shuffled(fresh[category], rng),
            # simple prompts have no rare pair: only their wording is new
            "ood": _shuffled(rares or order[:a], rng),
        }
    return divided


def looked_at(vocabulary):
    """Combinations on which settings of this book were measured under earlier drawings of the splits: a set.

    That is 200 validation prompts and 500 of each other split, all of the toy vocabulary. A drawing shuffles
    one grammar, so some of them wait for the final evaluation again.
    """
    sizes, looked = {"validation": 200, "heldout": 500, "unseen": 500, "ood": 500}, set()
    for drawing in range(1, DRAWING) if vocabulary is TOY else ():
        pools = splits(TOY, 0, drawing)["combination"]
        looked.update(*(pools[split][:size] for split, size in sizes.items()))
    return looked


def _row(want, category, split, use, place):
    """A row of the prompt table; `place` is the prompt's in its pool."""
    # ood alternates a new wording with the paper's, so that any stretch of it holds both kinds of novelty
    reworded = split == "ood" and (place % 2 or not rare(want))
    new = {"pair": rare(want), "wording": reworded}
    return {
        "prompt": phrase(want, reworded),
        "category": category,
        "split": split,
        "novelty": NOVELTY.get(split) or "+".join(what for what in new if new[what]),
        "use": use,
        **asdict(want),
    }


def split_rows(vocabulary, to_label, to_tune, to_evaluate, to_test, seed=0):
    """Prompt rows for every split: dicts with prompt, category, split, novelty, use and the four attributes.

    split       holds                                                                    use
    seen        paper grammar, seen objects: all simple and `to_label` combinations      label (train on)
    validation  10 % of the same grammar: `to_tune` combinations                         tune (settings)
    heldout     20 % of the same grammar, that no stage uses (the review's R1, R2)       evaluate, test
    unseen      the same templates with objects that feedback never contains             evaluate, test
    ood         rare colour-background pairs and a new wording                           evaluate, test

    Of each of the last three, `to_evaluate` combinations wait for the final evaluation and `to_test` others
    measure the reward. Simple prompts are few: half go either way. A prompt's split depends on `seed` alone,
    not on the sizes asked for.
    """
    uses = {"seen": ("label", to_label, 0), "validation": ("tune", to_tune, 0)}
    rows = []
    for category, pools in splits(vocabulary, seed).items():
        for split, pool in pools.items():
            use, size, rest = uses.get(split, ("evaluate", to_evaluate, to_test))
            if category == "combination" and rest and size >= len(pool):
                raise ConfigError(
                    f"to_evaluate {size} leaves none of the {len(pool)} {split} combinations to measure the "
                    "reward with: give a smaller one"
                )
            if category != "combination":
                size = len(pool) // 2 if use == "evaluate" else len(pool)
            each = [use] * size + ["test"] * rest
            for place, want in enumerate(pool[: len(each)]):
                rows.append(_row(want, category, split, each[place], place))
    return rows


def read(run):
    """The prompt table that stage `prompts` has made for a runs.Run. Raises ArtifactError."""
    return read_table(run.read("prompts", "prompts.csv"), COLUMNS)


def vocabulary(run):
    """The Vocabulary of the prompts that stage `prompts` has made for a runs.Run."""
    return VOCABULARIES[run.made("prompts")["vocabulary"]]


def wants(table):
    """`Attributes` of every row of a prompt table, a list; an empty cell means: not asked.

    A sentence outside the grammar, which has no object, stands for itself. Raises ArtifactError for an
    attribute that the grammar does not have.
    """
    objects = [o for vocabulary in VOCABULARIES.values() for o in vocabulary.objects]
    for name, known in {"prompt": table.get("prompt", []), "object": objects, **VALUES}.items():
        cells = table.get(name, pd.Series(["its column is gone"]))
        strange = cells[cells.notna() & ~cells.isin(known)]
        if len(strange):
            raise ArtifactError(
                f"{name!r} in {table.attrs.get('path', 'a table of prompts')} is "
                f"{shown(strange.tolist()[0])}: restore it"
            )
    asked = table[list(ATTRIBUTES)].astype({"count": "Int64"}).astype(object)
    rows = zip(asked.where(asked.notna(), None).to_numpy(), table.prompt, strict=True)
    return [Attributes(*row) if row[0] else said for row, said in rows]


def wanted(table, settings):
    """The images that stage `generate` draws, a row each, from the prompt table: several of every labelled
    prompt, and others, with use = "test", of prompts that measure the reward and of a few seen ones again.
    """
    label, simple = table.use == "label", table.category != "combination"
    each = np.where(simple, settings.per_simple, settings.per_combination)
    learn = table.loc[table.index.repeat(each * label)]
    again = table[label & ~simple].head(settings.test_seen).assign(use="test")
    test = pd.concat([again, table[table.use == "test"]], ignore_index=True)
    return pd.concat([learn, test.loc[test.index.repeat(settings.per_test)]], ignore_index=True)
