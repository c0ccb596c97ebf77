"""The front page's own parts as HTML: the picture that moves, the result, its verdicts, the loop."""

import html

import numpy as np
import pandas as pd
from PIL import Image

from rlhf_nb import evaluate, intervals
from rlhf_nb.files import read_json, read_table
from rlhf_nb.page import costs

VERDICTS = {"prompt": str, "category": str, "split": str, "condition": str, "all": bool}
SHOWN = 6  # prompts of the picture
WORDS = {"borne out": "yes", "refuted": "no", "undecided": "undecided"}
BOXES = (  # of the loop: name, what is done there, the chapter
    ("Draw", "pictures of prompts", "02_generate"),
    ("Mark", "good or bad", "03_feedback"),
    ("Learn", "a reward from marks", "04_reward"),
    ("Tune", "by the reward", "05_align"),
    ("Measure", "what it is worth", "06_evaluate"),
)


def compared(folder):
    """A line for each held-out combination prompt of the run in `folder` (a Path): prompt, base, tuned.

    The two say whether everything was right; the index is the prompt's row in the drawing of notebook 06.
    """
    found = read_table(folder / "evaluate" / "verdicts.csv", VERDICTS)
    base, tuned = (found[found.condition == name].reset_index(drop=True) for name in ("base", "tuned"))
    rows = base.assign(base=base["all"], tuned=tuned["all"])
    return rows.query("category == 'combination' and split == 'heldout'")[["prompt", "base", "tuned"]]


def chosen(rows):
    """The lines of `compared` that the front page shows: mended and broken ones in the run's own proportion.

    They are the first of their kind, and a fraction goes to the broken ones. Where too few prompts differ
    the first of the others follow.
    """
    mended, broken = rows[rows.tuned > rows.base], rows[rows.tuned < rows.base]
    worse = -(-SHOWN * len(broken) // max(1, len(mended) + len(broken)))
    found = pd.concat([mended.head(SHOWN - worse), broken.head(worse)])
    return pd.concat([found, rows.drop(found.index).head(SHOWN - len(found))])


def ways(folder, rows):
    """How both models of the run in `folder` draw some lines of `compared`, as notebook 06 drew them.

    {"base" and "tuned": a list of steps, each uint8 (N, H, W, 3)}, from noise to picture.
    """
    from rlhf_nb import diffusion

    made = settings(folder, "evaluate")
    guidance = numbers(folder, "guidance_base", "guidance_tuned")
    pipe = diffusion.load(made["pipeline"])
    unets = {"base": pipe.unet, "tuned": diffusion.load_unet(folder / "align" / "unet", pipe)}
    how = {"steps": made["steps"], "seed": made["seed"] + 12, "indices": rows.index.tolist()}
    return {
        name: diffusion.trajectory(
            pipe, rows.prompt.tolist(), unet=unet, guidance=guidance[f"guidance_{name}"], **how
        )
        for name, unet in unets.items()
    }


def count(n, thing):
    return f"{n} {thing}{'s' * (n != 1)}"


def told(rows, shown):
    """The caption: how many prompts there are of each kind, and which are shown."""
    mended, broken = rows.tuned > rows.base, rows.tuned < rows.base
    right, wrong = rows.base & rows.tuned, ~(rows.base | rows.tuned)
    own = {name: int(kind[shown.index].sum()) for name, kind in (("mended", mended), ("broken", broken))}
    words = [f"{n} that tuning has {name}" for name, n in own.items() if n]
    if rest := len(shown) - sum(own.values()):
        words.append(f"{rest} that it has not changed")
    return (
        "Each column is one prompt, drawn from the same noise. ✓ all as asked, ✗ not, as the judge reads it, "
        f"a network. Of {len(rows)} held-out prompts tuning mended {mended.sum()} and broke {broken.sum()}; "
        f"{right.sum()} stayed right and {wrong.sum()} wrong. Shown are the first {', '.join(words)}: mended "
        "and broken ones as often as in the whole run, rounded towards the broken."
    )


def moving(folder, pages):
    """The figure of six prompts, before and after; its pictures go to `pages`/_static/front."""
    rows = compared(folder)
    shown = chosen(rows)
    drawn = ways(folder, shown)
    target = pages / "_static" / "front"
    target.mkdir(parents=True, exist_ok=True)
    frames = len(drawn["base"])
    cells = ['<span></span><span class="when">before</span><span class="when">after</span>']
    for i, row in enumerate(shown.itertuples()):
        cells.append(f'<p class="prompt">{html.escape(row.prompt)}</p>')
        for model, when in (("base", "before"), ("tuned", "after")):
            strip = np.hstack([step[i] for step in drawn[model]])
            Image.fromarray(strip).save(target / f"{i}-{model}.webp", lossless=True)
            right = getattr(row, model)
            seen = "All as asked." if right else "Not as asked."
            said = f"{when.title()} tuning: {html.escape(row.prompt)} {seen}"
            cells.append(
                f'<div class="way {"right" if right else "wrong"}" data-when="{when}"><div class="picture">'
                f'<img src="_static/front/{i}-{model}.webp" alt="{said}"></div>'
                f'<span class="mark" aria-hidden="true">{"✓" if right else "✗"}</span></div>'
            )
    last = frames - 1
    return (
        f'<figure class="before-after" id="before-after" style="--frames: {frames}; --step: {last}">'
        f'<div class="grid">{"".join(cells)}</div><div class="play"><button type="button">Play</button>'
        f'<label for="front-step">From noise to picture</label><input id="front-step" type="range" min="0" '
        f'max="{last}" value="{last}"></div><figcaption>{told(rows, shown)}</figcaption></figure>'
    )


def numbers(folder, *names):
    """Some numbers of chapter 06, floats."""
    return read_json(folder / "evaluate" / "numbers.json", **dict.fromkeys(names, float))


def settings(folder, stage):
    """What a stage was run with."""
    return read_json(folder / stage / "manifest.json", settings=dict)["settings"]


def power(folder):
    """The power to which a reward weighs its picture, in words."""
    return f"{settings(folder, 'align')['knobs'].get('power', 1):.0f}"


def result(folder):
    """One line with the result: against what, on which prompts, after how many updates, how sure."""
    of = numbers(folder, "n", "base", "tuned", "gain", "gain_low", "gain_high")
    updates = settings(folder, "align")["updates"]
    return (
        f'<p class="result-line"><strong>{of["base"]:.1f} % → {of["tuned"]:.1f} %</strong> of pictures are '
        f"right in number, colour, object and place, before and after {updates:,} updates, on {of['n']:.0f} "
        f"prompts that this run never used: <strong>{of['gain']:+.1f} points</strong>, 95 % interval "
        f"{of['gain_low']:+.1f} to {of['gain_high']:+.1f} over prompts and noise; one training.</p>"
    )


def rival(folder):
    """Whether choosing among n is cheaper than tuning: (chip, sentence)."""
    found = read_json(folder / "best_of_n" / "numbers.json", tuned=float, best=float, match=float | None)
    made, tuning = (settings(folder, stage) for stage in ("best_of_n", "align"))
    least, most = found["match"], made["most"]
    on = f"on {count(made['prompts'], 'prompt')}"
    if least is None:
        told = (
            f"the best of {most} by the learnt reward is right in {found['best']:.0%}, one try of the tuned"
        )
        return "no", f"{told} model in {found['tuned']:.0%}, {on}"
    if least <= 1:
        return "yes", f"one try of the base model is as often right as one of the tuned model, {on}"
    guidance = numbers(folder, "guidance_base")["guidance_base"]
    pays = costs.paid(*costs.passes(tuning, made["steps"], guidance), least)
    words = (
        f"the best of {least:.0f} by the learnt reward is as often right as one try of the tuned model, {on}"
    )
    return "at first", f"{words}; after {pays:,.0f} pictures tuning has cost less"


def verdicts(folder):
    """A chip for each half of the claim and for the rival, with where each is decided."""
    of = numbers(folder, "gain", "gain_low", "gain_high", "frechet_ratio", "ratio_low", "ratio_high")
    near = intervals.verdict(evaluate.MARGIN - of["ratio_high"], evaluate.MARGIN - of["ratio_low"])
    lines = [
        (
            WORDS[intervals.verdict(of["gain_low"], of["gain_high"])],
            "06_evaluate",
            "<strong>Does it follow prompts better that it has never seen?</strong> "
            f"{of['gain']:+.1f} points [{of['gain_low']:+.1f}, {of['gain_high']:+.1f}]",
        ),
        (
            WORDS[near],
            "06_evaluate",
            "<strong>Do its pictures stay as near to real scenes?</strong> Their Fréchet distance is "
            f"{of['frechet_ratio']:.2f} times the base model's [{of['ratio_low']:.2f}, "
            f"{of['ratio_high']:.2f}]; yes means below {evaluate.MARGIN}",
        ),
    ]
    chip, words = rival(folder)
    lines.append(
        (chip, "07_best_of_n", f"<strong>Is choosing among n cheaper?</strong> {words[0].upper()}{words[1:]}")
    )
    items = "".join(
        f'<li><a class="chip {chip}" href="notebooks/{chapter}.html">{chip}</a><span>{words}.</span></li>'
        for chip, chapter, words in lines
    )
    return f'<ul class="chips">{items}</ul>'


def loop(tall=False):
    """The method as boxes that link to the chapters, one round; `tall` for narrow pages."""
    width, height, gap = 168, 86, 34
    parts = []
    for i, (name, does, chapter) in enumerate(BOXES):
        x, y = (40, i * (height + gap)) if tall else (i * (width + gap), 4)
        middle = x + width / 2
        parts.append(
            f'<a href="notebooks/{chapter}.html"><rect x="{x}" y="{y + 2}" width="{width}" height="{height}" '
            f'rx="10"/><text class="name" x="{middle}" y="{y + 40}">{name}</text>'
            f'<text class="does" x="{middle}" y="{y + 64}">{does}</text></a>'
        )
        if i < len(BOXES) - 1:
            parts.append(
                _arrow(middle, y + height + 2, 0, gap) if tall else _arrow(x + width, y + 45, gap, 0)
            )
    end = (len(BOXES) - 1) * ((height if tall else width) + gap)
    if tall:
        back = f"M{40 + width} {end + 45} h26 V45 h-18"
        tip = f"M{40 + width + 2} 45 l10 -6 v12 z"
        size = f"{width + 80} {end + height + 6}"
    else:
        back = f"M{end + width / 2} {height + 8} v28 H{width / 2} v-20"
        tip = f"M{width / 2} {height + 8} l-6 10 h12 z"
        parts.append(
            f'<text class="does" x="{(end + width) / 2}" y="{height + 58}">the tuned model draws</text>'
        )
        size = f"{end + width} {height + 66}"
    name = "tall" if tall else "wide"
    return (
        f'<svg class="loop {name}" viewBox="0 0 {size}" role="group" aria-label="The method: draw, mark, '
        f'learn, tune, measure, and draw with the tuned model">{"".join(parts)}<path d="{back}"/>'
        f'<path class="tip" d="{tip}"/></svg>'
    )


def _arrow(x, y, dx, dy):
    tip = f"M{x + dx} {y} l-10 -6 v12 z" if dx else f"M{x} {y + dy} l-6 -10 h12 z"
    return f'<path d="M{x} {y} l{max(0, dx - 8)} {max(0, dy - 8)}"/><path class="tip" d="{tip}"/>'


def write(folder, pages):
    """The parts of the run in `folder` as files that pages/index.md includes."""
    parts = {
        "before_after": moving(folder, pages),
        "result": result(folder),
        "verdicts": verdicts(folder),
        "loop": loop() + loop(tall=True),
    }
    for name, text in parts.items():
        (pages / "generated" / f"{name}.html").write_text(text)
