"""The graph at smoke scale, the strict build, and a browser with the network off that moves the sliders."""

import http.server
import os
import re
import subprocess
import sys
import threading

import pytest
from conftest import ROOT


@pytest.fixture(scope="session")
def site(smoke):
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
    assert "index.html" in done.stdout and "held-out prompts" in done.stdout
    return smoke / "_build" / "html"


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
def test_a_second_run_of_the_graph_does_what_is_out_of_date(smoke):
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
    assert set(re.findall(r"output: \S*/(\w+)\.ipynb", found)) == {
        "07_best_of_n",
        "09_sensitivity",
        "13_verdicts",
    }
    assert "Nothing to be done" in planned(smoke)


@pytest.mark.slow
def test_points_are_made_again_where_what_they_rest_on_changed(smoke):
    """Not because a notebook before them was merely run again, which would be hours for nothing."""
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
    assert '<a href="lab/index.html">' in (site / "index.html").read_text()
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
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.base, page.foreign = f"http://127.0.0.1:{server.server_port}", []

    def route(route):
        if route.request.url.startswith((page.base, "data:", "blob:")):
            route.continue_()
        else:
            page.foreign.append(route.request.url)
            route.abort()

    page.route("**/*", route)
    yield page
    page.close()
    server.shutdown()


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
