"""How long, heavy and readable the built pages are, against the budgets of a page that is finished.

PYTHONPATH=book python tests/book/budgets.py _build/html     a table of the pages, with what is over a budget
"""

import sys
from pathlib import Path
from urllib.parse import unquote

from served import launched, served, settle

WIDTH, HEIGHT, PHONE = 1280, 900, 400  # px
MOST = {  # a budget, and the most that a page may have
    "height, px": 9000,
    "lines of visible code": 60,
    "rows of a table": 8,
    "columns of a table": 6,
    "lowest edge of what is first seen of a picture, px": HEIGHT,
    "words of a paragraph": 100,
    "wrapped lines of code": 0,
    "pictures without words": 0,
    "controls without a name": 0,
    "px beyond a telephone": 0,
    "MB": 3.0,
    "errors in the console": 0,
}
LONG = [*MOST][:7]
EXEMPT = {  # pages that are lists by nature, and the budgets that they need not keep
    "notebooks/13_verdicts": LONG,
    "notebooks/A2_gpu": LONG,
    "notebooks/A3_methods": LONG,
    "provenance": LONG,
}
PICTURED = ("index", "notebooks/")  # pages that begin with a picture
NOT_OURS = ("genindex", "search")  # Sphinx's own
KNOWN = (  # words of errors in the console that others make and we cannot mend
    "Identifier 'THEBE_JS_URL' has already been declared",  # sphinx-thebe writes its settings twice
)
SEEN = 128  # px of a first picture, or all of it, that stand on the first screen

MEASURE = Path(__file__).with_name("measure.js").read_text().partition("\n")[2]


def pages(site):
    """Names of the pages in the folder `site`, as their addresses have them."""
    found = (path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html"))
    return sorted(name for name in found if name not in NOT_OURS and not name.startswith("_"))


def measured(page, base, site, name):
    """What a browser's `page` finds on the page `name` of the folder `site`, served at `base`."""
    errors = []
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    page.goto(f"{base}/{name}.html", wait_until="load")
    settle(page)
    height = page.evaluate("document.documentElement.scrollHeight")
    found = page.evaluate(MEASURE, SEEN) | {"height": height}
    page.set_viewport_size({"width": PHONE, "height": HEIGHT})
    page.reload(wait_until="load")
    settle(page)
    found["phone"] = page.evaluate("document.documentElement.scrollWidth")
    local = [url.removeprefix(f"{base}/") for url in found["images"] if url.startswith(base)]
    sizes = [(site / unquote(url.split("?")[0])).stat().st_size for url in {f"{name}.html", *local}]
    found["errors"] = [said for said in dict.fromkeys(errors) if not any(words in said for words in KNOWN)]
    return found | {"bytes": sum(sizes)}


def budgets(found, name):
    """What a page has of each budget, with what is to be mended."""
    rows, columns = ([size[i] for size in found["tables"]] or [0] for i in (0, 1))
    pictured = name.startswith(PICTURED)
    first = 10**6 if found["first"] is None else found["first"]
    return {
        "height, px": found["height"],
        "lines of visible code": found["code"],
        "rows of a table": max(rows),
        "columns of a table": max(columns),
        "lowest edge of what is first seen of a picture, px": round(first) if pictured else 0,
        "words of a paragraph": found["paragraph"],
        "wrapped lines of code": len(found["wrapped"]),
        "pictures without words": len(found["silent"]),
        "controls without a name": len(found["nameless"]),
        "px beyond a telephone": found["phone"] - PHONE,
        "MB": round(found["bytes"] / 1e6, 2),
        "errors in the console": len(found["errors"]),
    }


def broken(found, name):
    """Sentences on the budgets that a page does not keep."""
    of, kept = budgets(found, name), EXEMPT.get(name, ())
    over = [budget for budget, most in MOST.items() if of[budget] > most and budget not in kept]
    details = {
        "wrapped lines of code": found["wrapped"],
        "pictures without words": found["silent"],
        "controls without a name": found["nameless"],
        "errors in the console": found["errors"],
    }
    return [f"{budget}: {of[budget]}, at most {MOST[budget]} {details.get(budget, '')}" for budget in over]


def main(site):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p, served(site) as base:
        browser = launched(p)
        print("| page | px | code | words | first picture, px | MB | over |\n|---|---|---|---|---|---|---|")
        for name in pages(site):
            page = browser.new_page()
            found = measured(page, base, site, name)
            page.close()
            over = "; ".join(broken(found, name))
            first = "-" if found["first"] is None else round(found["first"])
            columns = [
                name,
                found["height"],
                found["code"],
                found["words"],
                first,
                f"{found['bytes'] / 1e6:.2f}",
                over,
            ]
            print("|", " | ".join(map(str, columns)), "|")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
