"""What of a notebook's outputs is compared with its reference: everything but what is measured.

A reference holds for every processor. Trained weights differ from one kind to another in their last bits and
after some steps in their first ones, and at smoke scale any measured number may then have another sign, whole
part or length. So a number counts as a number, a verdict as a verdict and a figure as a figure; words, names,
rows, columns and the order of all of them are compared as they are. In cells tagged `exact` numbers count
too: these print what settings and seed alone decide. A table's rows are sorted by something measured in cells
tagged `unordered`, and chosen by it in those tagged `varies`. `test_printed.py` holds verdicts and orders
against the numbers printed with them.

As a pytest plugin (`--nbval -p outputs`) this lets nbval run the notebooks themselves and compares every cell
with tests/reference.
"""

import difflib
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlhf_nb import stages

sys.modules["rfc3987_syntax"] = None  # jsonschema would compile a grammar of addresses, for two seconds

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "tests" / "reference"
NUMBER = re.compile(
    r"(?<![\w.#])[-+±]?(?:\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?|\.\d+|nan|inf)(?![\w#])(?: ?%)?", re.I
)
CHOSEN = {  # words that a measured number chooses, each family a word of its own
    "VERDICT": r"borne out|refuted|undecided",
    "RANKED": r"(?<=\], )(?:better|worse|not told apart)\b|(?<= \| )(?:gains|loses|not told apart)(?= \|)"
    r"|(?:larger than|smaller than|not told apart from)(?= the base's)",
    "FOOLED": r"a reward that fools itself|below nothing, so the truth rises more|"
    r"not told apart from nothing",
    "LIKED": r"(?<=disliked pictures liked ones )(?:became (?:less likely|likelier)|cannot be told apart)",
    "FOUND": r"gained (?:more|less) than|could not be told apart from",
    "CONTROL": r"a gain, which contradicts the method|no gain seen",
    "GATE": r"(?<= \| )(?:passed|FAILED)$",
    "REACHED": r"n = \d+(?=[ ),])|no n up to \d+",
    "SPREAD": r"[-+]\d+ % \[[^]]*\]; real scenes [-+]\d+ %|too few to say",
    "EFFECT": r"(?<=the right ones of the four \(% of the base's\) \|  \| ).*",
    "WEAKEST": r"(?<=fewest good pictures: )\w+|(?<=harder than those of a )\w+"
    r"|\w+(?= prompts (?:are ranked best|worst))|(?<=a wrong )\w+",
    "CAUGHT": r"(?<=raters caught: ).*|(?<= )(?:True|False)$",
    "PULLED": r"(?<=\]: )(?:it helps|it harms|not told apart)(?=\.)|(?<=weakest point: )\w+",
}


class Table(HTMLParser):
    """The rows of an HTML table, a list of cell texts each."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.open = [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data.strip()


def plain(text, exact):
    """Lines of a text without what may differ: runs of spaces, bytes of pictures, and unless `exact` numbers
    and the words they choose."""
    text = re.sub(r"b(['\"])(?:\\.|(?!\1).)*\1", "BYTES", text)
    if not exact:
        for word, family in CHOSEN.items():
            text = re.sub(family, word, text, flags=re.M)
        text = NUMBER.sub("#", text)
    return [re.sub(r"[ \t]+", " ", line).rstrip() for line in text.splitlines() if line.strip()]


def lines(outputs, tags=()):
    """What of a cell's outputs is compared, as lines of text: streams, tables as rows of cells, Markdown,
    figures by their size. Progress bars and stderr are not compared."""
    found = []
    for output in outputs:
        if output["output_type"] == "error":
            found += [f"{output['ename']}: {output['evalue']}"]
        elif output["output_type"] == "stream":
            found += plain("".join(output["text"]), "exact" in tags) if output["name"] == "stdout" else []
        else:
            data = {kind: "".join(of) if isinstance(of, list) else of for kind, of in output["data"].items()}
            if "<table" in data.get("text/html", ""):
                rows = [" | ".join(row) for row in Table(data["text/html"]).rows]
                rows = [line for row in rows for line in plain(row, "exact" in tags)]
                found += sorted(rows) if "unordered" in tags else rows[:1] if "varies" in tags else rows
            else:
                text = data.get("text/markdown") or data.get("text/plain", "")
                picture = any(kind.startswith("image/") for kind in data)
                told = plain(text, "exact" in tags or picture)
                told = told[:1] if "varies" in tags else told
                found += [] if "it/s" in text else told  # a bar is no result
    return found


def printed(notebook):
    """{number: (first line of the source, what is compared)} of an executed notebook's code cells that print
    something."""
    cells = [
        c
        for c in notebook["cells"]
        if c["cell_type"] == "code" and "injected-parameters" not in c["metadata"].get("tags", [])
    ]
    found = {
        k: (head(c["source"]), lines(c["outputs"], c["metadata"].get("tags", [])))
        for k, c in enumerate(cells)
    }
    return {k: (first, said) for k, (first, said) in found.items() if said}


def head(source):
    return next(iter("".join(source).splitlines()), "")


def write(stem, cells):
    """Keep what `printed` found as the reference of a notebook."""
    text = "\n".join(
        f"[{k}] {first}\n" + "".join(f"    {line}\n" for line in said) for k, (first, said) in cells.items()
    )
    (REFERENCE / f"{stem}.txt").write_text(text)


def reference(stem):
    """What `write` kept."""
    found = {}
    for line in (REFERENCE / f"{stem}.txt").read_text().splitlines():
        if line.startswith("["):
            number, first = line[1:].split("] ", 1)
            said = found.setdefault(int(number), (first, []))[1]
        elif line:
            said.append(line[4:])
    return found


def differences(stem, cells):
    """Lines that say where `cells`, as `printed` finds them, differ from the notebook's reference."""
    found, kept = [], reference(stem)
    for k in sorted(cells.keys() | kept.keys()):
        (first, said), (was, expected) = cells.get(k, ("", [])), kept.get(k, ("", []))
        if first and was and first != was:
            said = f"{stem}, code cell {k} begins with another line than its reference"
            return [f"{said}: run `make reference` and look at what it changes", was, first]
        if said != expected:
            lines_apart = difflib.unified_diff(expected, said, lineterm="", n=0)
            found += [f"{stem}, code cell {k}, {first or was}", *list(lines_apart)[2:]]
    return found


# The pytest plugin


def pytest_addoption(parser):
    words = "after the last cell of a notebook run every cell again, last one first, then all in order"
    parser.addoption("--again", action="store_true", help=words)


def pytest_configure(config):
    """A kernel that does not start is started again; nbval has an option for how long it waits, and none for
    this."""
    from nbval import kernel

    start = kernel.start_new_kernel

    def persistent(**options):
        for left in reversed(range(3)):
            try:
                return start(**options)
            except RuntimeError:
                if not left:
                    raise

    kernel.start_new_kernel = persistent


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """After nbval has run a cell: does it print what its reference says? After the last one: can all run
    again?"""
    done = yield
    compare(item)
    mates = [i for i in item.session.items if i.parent is item.parent]
    if item is mates[-1] and item.config.option.again:
        made = digest(item.path.stem)
        for again in (mates[::-1], mates):  # each pass by itself: what one turns the other turns back
            for cell in again:
                cell.runtest()
            for cell in mates:
                compare(cell)
        assert digest(item.path.stem) == made, f"{item.path.stem}: run again it makes other artifacts"
    return done


def compare(cell):
    """Fail where a cell of nbval's printed something else than its reference."""
    stem, number, source = cell.path.stem, cell.cell_num, cell.cell["source"]
    found = {k: kept for k, kept in reference(stem).items() if k != number}
    if said := lines(cell.test_outputs, cell.cell["metadata"].get("tags", [])):
        found[number] = head(source), said
    if wrong := differences(stem, found):
        pytest.fail("\n".join(wrong), pytrace=False)


def digest(stem):
    """Digest of the stage that a notebook of the smoke run has made, "" where it makes none."""
    from rlhf_nb import runs  # which loads PyTorch: only where it is asked for

    stage = next((s for s, n in stages.NOTEBOOKS.items() if n == stem), "")
    return stage and runs.manifest("smoke", stage)["digest"]
