"""`python tests/defects.py FOLDER`: plant defects one by one and see whether the notebooks' part of the tests
catches each.

FOLDER holds a finished smoke run as `graph.run` leaves it. A defect is a text changed in a copy of the
project. The chapter it reaches runs again, and every later one whose inputs changed, until one of them prints
something else than its reference, or `test_printed.py` finds that the run does not hold against itself.
Without a defect all must pass.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import outputs
from graph import ROOT

from rlhf_nb import stages

LINE = "{:58} {:14} {:>7}  {}"
# (what, chapter it reaches, file, text there, text in its place)
DEFECTS = [
    (
        "a split of the prompts lost",
        "01_prompts",
        "",
        'run.csv("prompts.csv", rows)',
        'run.csv("prompts.csv", [r for r in rows if r["split"] != "unseen"])',
    ),
    (
        "three rows of pictures lost",
        "02_generate",
        "",
        "prompts.wanted(table, settings)",
        "prompts.wanted(table, settings).iloc[:-3]",
    ),
    (
        "good and bad swapped in the paper's table",
        "03_feedback",
        "",
        "pd.crosstab(of_labelled.category, of_labelled.label,",
        'pd.crosstab(of_labelled.category, of_labelled.label.replace({"good": "bad", "bad": "good"}),',
    ),
    (
        "a rater lost",
        "03_feedback",
        "",
        "for judged in (simulated, real, blind):",
        "for judged in (simulated, real):",
    ),
    (
        "a column renamed",
        "04_reward",
        "",
        '"label": y,',
        '"good": y,',
    ),
    (
        "a figure missing",
        "10_stress",
        "rlhf_nb/page/rewards.py",
        "            axis.axvline(0, **figures.RULE)\n    plt.show()",
        "            axis.axvline(0, **figures.RULE)\n    plt.close()",
    ),
    (
        "a gain with its sides swapped",
        "04_reward",
        "",
        "heads.ranked(scored[a], rows, scored.get(b), across)",
        "heads.ranked(scored.get(b, scored[a]), rows, scored[a] if b else None, across)",
    ),
    (
        "beta left out of Eq. 2",
        "05_align",
        "rlhf_nb/methods/reward_weighted.py",
        "torch.where(batch.is_model, batch.weight, knobs.beta)",
        "torch.where(batch.is_model, batch.weight, 1.0)",
    ),
    (
        "the base model kept as the tuned one",
        "05_align",
        "",
        'diffusion.save_unet(tuned, run.path("unet"))',
        'diffusion.save_unet(pipe.unet, run.path("unet"))',
    ),
    (
        "the first row of the log lost",
        "05_align",
        "",
        'run.csv("log.csv", logged)',
        'run.csv("log.csv", logged[1:])',
    ),
    (
        "two arms swapped",
        "06_evaluate",
        "",
        'unets = {"base": pipe.unet, "tuned": tuned_unet}',
        'unets = {"base": tuned_unet, "tuned": pipe.unet}',
    ),
    (
        "a verdict turned by swapping its sides",
        "06_evaluate",
        "",
        "evaluate.MARGIN - numbers.ratio_high, evaluate.MARGIN - numbers.ratio_low",
        "numbers.ratio_low - evaluate.MARGIN, numbers.ratio_high - evaluate.MARGIN",
    ),
    (
        "a row of the result lost",
        "06_evaluate",
        "rlhf_nb/page/tables.py",
        '    "unseen": "unseen objects",\n    "ood": "out of distribution",\n',
        '    "unseen": "unseen objects",\n',
    ),
    (
        "the ends of every interval swapped",
        "06_evaluate",
        "rlhf_nb/intervals.py",
        '(value, "low", "high")',
        '(value, "high", "low")',
    ),
    (
        "reward and oracle swapped",
        "07_best_of_n",
        "",
        'for group, scored in (("learnt reward", value), ("oracle", hits))',
        'for group, scored in (("learnt reward", hits), ("oracle", value))',
    ),
    (
        "an error sentence printed",
        "07_best_of_n",
        "",
        'curves = run.csv("best_of_n.csv", pd.DataFrame(lines, columns=columns))',
        'curves = run.csv("best_of_n.csv", pd.DataFrame(lines, columns=columns))\n'
        'print("ModelError: the reward cannot be loaded")',
    ),
    (
        "two controls swapped",
        "08_data",
        "",
        'controls = findings.look(run, "controls", ["arm"], "purity", "ratio")',
        'controls = findings.look(run, "controls", ["arm"], "purity", "ratio")\n'
        'turned = {"reward": "oracle", "oracle": "reward"}\n'
        'controls.table["arm"] = controls.table.arm.replace(turned)',
    ),
    (
        "a table empty",
        "08_data",
        "rlhf_nb/study/record.py",
        'rows[rows.arm != "none"].groupby(groups, sort=False)',
        'rows[rows.arm == "nobody"].groupby(groups, sort=False)',
    ),
    (
        "every claim's verdict turned",
        "13_verdicts",
        "rlhf_nb/page/verdicts.py",
        "map(intervals.verdict, table.low, table.high)",
        "map(intervals.verdict, -table.high, -table.low)",
    ),
    (
        "passed and failed swapped",
        "A1_pretrain",
        "rlhf_nb/page/testbed.py",
        '"passed" if low <= share[gate] <= high else "FAILED"',
        '"FAILED" if low <= share[gate] <= high else "passed"',
    ),
]


def changed(source, old, new):
    """`source` with `old`, which must stand there once, replaced; of a notebook the text is that of its
    cells.
    """
    if not source.name.endswith(".ipynb"):
        text = source.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {source.name}"
        return source.write_text(text.replace(old, new))
    notebook = nbformat.read(source, 4)
    cells = [c for c in notebook.cells if old in c.source]
    assert len(cells) == 1, f"{old!r} stands in {len(cells)} cells of {source.name}"
    cells[0].source = cells[0].source.replace(old, new)
    nbformat.write(notebook, source)


def run(command, tree, folder):
    """The end of a command in the copy of the project, with the artifacts of its own."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    added = {"RLHF_NB_RUNS": f"{folder}/runs", "RLHF_NB_SMOKE": str(folder), "PYTHONPATH": str(tree)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env={**os.environ, **threads, **added},
        capture_output=True,
        text=True,
    )


def prints_something_else(stem, folder):
    """The first line by which an executed notebook differs from its reference, its source left aside."""
    kept = outputs.reference(stem)
    found = outputs.printed(nbformat.read(folder / "book" / "notebooks" / f"{stem}.ipynb", 4))
    found = {k: (kept.get(k, (first,))[0], said) for k, (first, said) in found.items()}
    return next((line for line in outputs.differences(stem, found) if line[0] in "-+"), "")


def stale(stem, tree, folder):
    """Whether a chapter was made from an older one."""
    code = f"""
from rlhf_nb import runs, stages
runs.manifest("smoke", next(s for s, name in stages.NOTEBOOKS.items() if name == "{stem}"))
"""
    return run(["-c", code], tree, folder).returncode != 0


def caught(smoke, defect):
    """What catches a defect, "" where nothing does."""
    _, chapter, file, old, new = defect
    with tempfile.TemporaryDirectory() as name:
        tree, folder = Path(name) / "tree", Path(name) / "smoke"
        named = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
        )
        for path in filter(lambda p: (ROOT / p).exists(), named.stdout.split("\n")[:-1]):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, tree / path)
        shutil.copytree(smoke, folder)
        if old:
            changed(tree / (file or f"notebooks/{chapter}.ipynb"), old, new)
        if "study" in file:
            shutil.rmtree(folder / "runs" / "smoke" / "study")
        for stem in stages.NOTEBOOKS.values():
            if stem != chapter and (stem == "A1_pretrain" or not stale(stem, tree, folder)):
                continue
            out = folder / "book" / "notebooks" / f"{stem}.ipynb"
            done = run(["notebooks/run.py", f"notebooks/{stem}.ipynb", str(out), "scale=smoke"], tree, folder)
            if done.returncode:
                return f"{stem} stops: {done.stdout.strip().splitlines()[-1]}"
            if line := prints_something_else(stem, folder):
                return f"{stem} prints {line}"
        done = run(
            ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/test_printed.py"], tree, folder
        )
        return next((line for line in done.stdout.splitlines() if line.startswith("FAILED")), "")


def main():
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("folder", type=Path)
    ask.add_argument("--only", type=int, nargs="*", help="numbers of the defects to plant")
    args = ask.parse_args()
    none = ("nothing", "06_evaluate", "", "", "")
    chosen = [none, *(DEFECTS if args.only is None else [DEFECTS[k - 1] for k in args.only])]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda d: caught(args.folder, d), chosen))
    for k, (defect, by) in enumerate(zip(chosen, found, strict=True)):
        print(LINE.format(f"{k:2} {defect[0]}", defect[1], "caught" if by else "missed", by[:110]))
    print(
        f"{sum(map(bool, found[1:]))} of {len(found) - 1} planted defects are caught; without one "
        f"{found[0] or 'all passes'}"
    )
    sys.exit(not all(found[1:]) or bool(found[0]))


if __name__ == "__main__":
    main()
