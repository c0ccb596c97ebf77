"""The graph at smoke scale, the strict build, and a browser with the network off that moves the sliders."""

import os
import re
import subprocess
import sys

import paper
import pytest
from conftest import ROOT
from filelock import FileLock
from served import served

from book import budgets


def build(smoke):
    done = subprocess.run(
        [
            sys.executable,
            "book/build.py",
            "--book",
            smoke / "book",
            "--runs",
            smoke / "runs" / "smoke",
            "--out",
            smoke,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "index.html" in done.stdout and "95 % interval" in done.stdout


@pytest.fixture(scope="session")
def site(smoke):
    """The folder of the built site; the first worker that asks builds it."""
    built = smoke / f"built-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
    with FileLock(smoke / "site.lock"):
        if not built.exists():
            build(smoke)
            built.touch()
    return smoke / "_build" / "html"


@pytest.fixture
def still(smoke):
    """The executed graph while nobody builds the site from it: for who changes it for a while."""
    with FileLock(smoke / "site.lock"):
        yield smoke


def planned(smoke, *target):
    """What the graph would do now on the finished smoke run."""
    environment = {
        **os.environ,
        "RLHF_NB_RUNS": str(smoke / "runs"),
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
    }
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        "notebooks/Snakefile",
        "--cores",
        "2",
        "-n",
        "--nolock",
        "--rerun-triggers",
        "mtime",
        "params",
        "--config",
        "scale=smoke",
        "sweep=live",
        f"out={smoke}/book/notebooks",
        "--",
        *(target or ["all"]),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_second_run_of_the_graph_does_what_is_out_of_date(still):
    smoke = still
    assert "Nothing to be done" in planned(smoke)
    copy, made = (
        smoke / "book" / "notebooks" / "07_best_of_n.ipynb",
        smoke / "runs" / "smoke" / "best_of_n" / "manifest.json",
    )
    made.rename(made.with_suffix(".away"))
    found = planned(smoke)
    made.with_suffix(".away").rename(made)
    for put_aside in copy.parent.glob("*.old"):
        put_aside.rename(put_aside.with_suffix(".ipynb"))
    assert {*re.findall(r"output: \S*/(\w+)\.ipynb", found)} == {"07_best_of_n", "13_verdicts"}
    assert "Nothing to be done" in planned(smoke)


@pytest.mark.slow
def test_points_are_made_again_where_what_they_rest_on_changed(still):
    """Not because a notebook before them was merely run again, which would be hours for nothing."""
    smoke = still
    copy = smoke / "book" / "notebooks" / "04_reward.ipynb"
    before = copy.stat()
    os.utime(copy)
    assert "Nothing to be done" in planned(smoke, "sweeps")
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    points = sorted((smoke / "runs" / "smoke" / "study").glob("*/manifest.json"))
    other = points[0].read_text()
    points[0].write_text(re.sub(r'("reward": ")\w', r"\1-", other))  # made from another reward
    found = planned(smoke, "sweeps")
    points[0].with_suffix(".old").unlink()
    points[0].write_text(other)
    assert re.findall(r"output: \S*/study/(\w+)/manifest.json", found) == [points[0].parent.name]


@pytest.mark.slow
def test_strict_build_has_every_page(site):
    for page in ("index", "notation", "reference", "provenance", "notebooks/06_evaluate", "lab/index"):
        assert (site / f"{page}.html").exists()
    front = (site / "index.html").read_text()
    assert '<a href="lab/index.html">' in front and 'class="before-after"' in front
    links = re.findall(r'href="([^":#]+\.html)', front)
    assert "notebooks/07_best_of_n.html" in links and all((site / link).exists() for link in links)
    ran = site.parents[1] / "book" / "notebooks" / "02_generate.ipynb"  # to download: as it ran
    assert (site / "_sources" / "notebooks" / ran.name).read_bytes() == ran.read_bytes()
    assert "ROU4N4IRYZ3HV3M7HKTK3YY643" in (site / "reference.html").read_text()
    assert "evaluate" in (site / "provenance.html").read_text()
    results = (site / "notebooks" / "06_evaluate.html").read_text()
    assert (
        '<p class="admonition-title">Here</p>' in results
        and "held-out combination prompts the base model gets everything right" in results
    )


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site):
    loads = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)="((?:https?:)?//[^"]+)"')
    assert not {url for page in site.rglob("*.html") for url in loads.findall(page.read_text())}


def test_a_book_without_its_scripts_is_not_built(tmp_path):
    done = subprocess.run(
        [sys.executable, "book/build.py", "--book", tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("error: the book's browser scripts are missing")


@pytest.fixture
def page(browser, site):
    """A page whose every request to another host is refused and remembered."""
    with served(site) as base:
        page = browser.new_page()
        page.base, page.foreign = base, []

        def route(route):
            if route.request.url.startswith((page.base, "data:", "blob:")):
                route.continue_()
            else:
                page.foreign.append(route.request.url)
                route.abort()

        page.route("**/*", route)
        yield page
        page.close()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("stem", ["00_tour", "02_generate", "05_align", "06_evaluate"])
def test_a_slider_changes_the_picture_with_the_network_off(page, stem):
    page.goto(f"{page.base}/notebooks/{stem}.html", wait_until="load")
    slider = page.locator(".widget-slider .noUi-handle").first
    slider.wait_for(timeout=30_000)
    shown = page.locator(
        ".widget-vbox:has(.widget-slider) img.widget-image:visible"
    ).first  # the slider's own, not another widget's
    shown.wait_for(timeout=30_000)
    page.wait_for_timeout(300)
    before = shown.screenshot()
    slider.focus()
    page.keyboard.press("End")
    page.wait_for_timeout(500)
    assert shown.screenshot() != before  # pixels, not addresses
    assert not page.foreign


@pytest.mark.slow
@pytest.mark.browser
def test_formulas_are_drawn_and_no_page_asks_another_host(page, site):
    for path in sorted(site.glob("*.html")) + sorted(site.glob("notebooks/*.html")):
        page.goto(f"{page.base}/{path.relative_to(site).as_posix()}", wait_until="load")
    page.goto(f"{page.base}/notation.html", wait_until="load")
    page.wait_for_selector("mjx-container", timeout=20_000)
    assert page.locator("mjx-container").count() > 20
    assert not page.foreign, page.foreign


@pytest.mark.slow
@pytest.mark.browser
def test_pages_keep_their_budgets(browser, site):
    """Height, code, tables, first picture, words, names for all there is, telephone, weight, console."""
    over = {}
    with served(site) as base:
        for name in budgets.pages(site):
            page = browser.new_page()
            if wrong := budgets.broken(budgets.measured(page, base, site, name), name):
                over[name] = "\n  ".join(wrong)
            page.close()
    told = "\n".join(f"{name}\n  {wrong}" for name, wrong in over.items())
    assert not told, told


def test_a_page_over_its_budgets_is_told_apart(browser, tmp_path):
    """A page made for it breaks every budget, and one that keeps them none."""
    good = """<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,"><main><h1>Good</h1>
      <img alt="A blue square" src="square.svg" width="128" height="128"><p>Some words.</p>
      <details><summary>Show the code</summary><pre>a = 1</pre></details><button>Draw</button></main>"""
    rows = "<tr>" + "<td>1</td>" * 7 + "</tr>"
    bad = f"""<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,"><main><h1>Bad</h1>
      <p style="width: 600px; height: 9000px">{"word " * 101}</p>
      <pre style="width: 20em; overflow: auto">{"long " * 99}
      {"x" + chr(10) * 61}y</pre><table><tbody>{rows * 9}</tbody></table>
      <img alt="a.png" src="square.svg" width="128" height="128"><button></button>
      <script>console.error("wrong")</script><!--{"x" * 3_100_000}--></main>"""
    (tmp_path / "square.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>')
    (tmp_path / "notebooks").mkdir()
    for name, html in (("good", good), ("bad", bad)):
        (tmp_path / "notebooks" / f"{name}.html").write_text(html.replace("square", "../square"))
    found = {}
    with served(tmp_path) as base:
        for name in budgets.pages(tmp_path):
            page = browser.new_page()
            found[name] = budgets.measured(page, base, tmp_path, name)
            page.close()
    assert [*found] == ["notebooks/bad", "notebooks/good"]
    assert not budgets.broken(found["notebooks/good"], "notebooks/good")
    wrong = budgets.broken(found["notebooks/bad"], "notebooks/bad")
    assert [words.partition(":")[0] for words in wrong] == [*budgets.MOST]
    assert len(budgets.broken(found["notebooks/bad"], "provenance")) == len(budgets.MOST) - len(budgets.LONG)


@pytest.mark.slow
@pytest.mark.browser
def test_paper_has_still_pictures(browser, site, tmp_path):
    with served(site) as base:
        contents = [("", ["index"]), ("Some", ["notebooks/02_generate", "notation"])]
        paper.printed(browser, base, contents, tmp_path / "book.pdf")
    made = (tmp_path / "book.pdf").read_bytes()
    assert made.startswith(b"%PDF") and made.count(b"/Type /Page\n") + made.count(b"/Type /Page ") >= 4
    assert made.count(b"/Subtype /Image") > 12
