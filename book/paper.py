"""The built site as one PDF, by headless Chromium: every page in order, with still pictures.

python book/paper.py [--site _build/html] [--out _build/book.pdf]
"""

import argparse
import html
import sys
from pathlib import Path

import yaml
from served import launched, served, settle

ROOT = Path(__file__).resolve().parent.parent
JOIN = (ROOT / "book" / "paper.js").read_text()
FOOT = '<div style="width: 100%; font-size: 8px; text-align: center"><span class="pageNumber"></span></div>'


def parts(toc):
    """[(caption, pages)] of a table of contents, the front page first."""
    found = yaml.safe_load(toc.read_text())
    named = [(part["caption"], [page["file"] for page in part["chapters"]]) for part in found["parts"]]
    return [("", [found["root"]]), *named]


def slug(name):
    return name.replace("/", "-")


def bound(pages, titles, contents, head):
    """One HTML document of the articles {name: {"html", "rules"}}; titles {name: words}."""
    lines = []
    for caption, names in contents[1:]:
        items = "".join(f'<li><a href="#{slug(n)}">{html.escape(titles[n])}</a></li>' for n in names)
        lines.append(f"<h3>{html.escape(caption)}</h3><ol>{items}</ol>")
    order = [*pages]
    listed = f'<section class="contents"><h2>Contents</h2>{"".join(lines)}</section>'
    articles = [pages[name]["html"] for name in order]
    rules = "\n".join(page["rules"] for page in pages.values())
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f"<title>{html.escape(titles[order[0]])}</title>{head}<style>{rules}\n"
        ".bd-article, .contents { break-before: page; } .bd-article:first-of-type { break-before: auto; }"
        f"</style></head><body>{articles[0]}{listed}{''.join(articles[1:])}</body></html>"
    )


def printed(browser, base, contents, out):
    """Write the PDF of the site that is served at `base`."""
    found, titles, head = {}, {}, ""
    for name in (name for _, names in contents for name in names):
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.emulate_media(reduced_motion="reduce")
        page.goto(f"{base}/{name}.html", wait_until="load")
        settle(page)
        titles[name] = page.locator("article h1").first.inner_text().rstrip("#").strip()
        head = head or page.evaluate(
            "[...document.querySelectorAll('link[rel=stylesheet]')].map((of) => "
            "`<link rel=stylesheet href='${of.href}'>`).join('')"
        )
        found[name] = page.evaluate(JOIN, slug(name))
        page.close()
    page = browser.new_page(color_scheme="light")
    page.route(
        f"{base}/paper",
        lambda route: route.fulfill(
            body=bound(found, titles, contents, head), content_type="text/html; charset=utf-8"
        ),
    )
    page.goto(f"{base}/paper", wait_until="load")
    page.wait_for_timeout(1000)
    numbered = {"display_header_footer": True, "header_template": "<span></span>", "footer_template": FOOT}
    edges = dict.fromkeys(("top", "bottom", "left", "right"), "15mm")
    page.pdf(
        path=out, format="A4", margin=edges, print_background=True, outline=True, tagged=True, **numbered
    )


def main():
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--site", type=Path, default=ROOT / "_build" / "html", help="the built site")
    ask.add_argument("--out", type=Path, default=ROOT / "_build" / "book.pdf", help="the PDF")
    args = ask.parse_args()
    if not (args.site / "index.html").exists():
        sys.exit(f"error: there is no built site in {args.site}: run `make book` first")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p, served(args.site) as base:
        if not (browser := launched(p)):
            sys.exit("error: no Chromium on the PATH: install one, or run `playwright install chromium`")
        printed(browser, base, parts(ROOT / "book" / "_toc.yml"), args.out)
    print(f"paper: {args.out}")


if __name__ == "__main__":
    main()
