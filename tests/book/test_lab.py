"""The labelling widget in a real JupyterLab: mouse, keyboard, undo, a restarted kernel, and the rows that are
left; and the chapters' boxes.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import numpy as np
import pytest
from conftest import ROOT

from rlhf_nb.feedback import widgets
from rlhf_nb.feedback.store import Store

CELL = """
import sys; sys.path.insert(0, {root!r})
import numpy as np
from rlhf_nb.feedback import widgets
from rlhf_nb.feedback.store import Store
prompts = np.repeat([f"<b>{{k}}</b> cats." for k in range(5)], 3)
images = np.random.default_rng(0).integers(0, 255, (15, 64, 64, 3), np.uint8)
widgets.Labeler(images, prompts, Store({store!r}), "ann")
"""

BOX = """:::{admonition} Paper
:class: note
What the paper claims, as the chapters have it.
:::"""


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab of its own on a notebook with one widget: (address, notebook name, store)."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    store = tmp_path / "labels.sqlite"
    cells = [
        nbformat.v4.new_code_cell(CELL.format(root=str(ROOT), store=str(store)).strip()),
        nbformat.v4.new_markdown_cell(BOX),
    ]
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        ),
        tmp_path / "label.ipynb",
    )
    home = {
        name: str(tmp_path / "home")
        for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR")
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={tmp_path}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with (
        open(tmp_path / "lab.log", "w") as log,
        subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **home}, stdout=log, stderr=log) as server,
    ):
        base = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{base}/api").read()
                break
            except OSError:
                time.sleep(0.5)
        yield base, Store(store)
        server.terminate()


@pytest.mark.slow
@pytest.mark.browser
def test_labelling_in_jupyterlab(browser, lab):
    base, store = lab
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{base}/lab/tree/label.ipynb?reset", wait_until="load")

    def run_cell():
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=300_000)
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_function(
            "document.querySelectorAll('.widget-toggle-buttons').length >= 3", timeout=300_000
        )

    def judged(n):
        for _ in range(100):
            if len(store.table()) == n:
                return
            page.wait_for_timeout(100)
        raise AssertionError(f"{len(store.table())} judgements in the store, {n} expected")

    def mouse(slot, label):
        page.locator(".widget-toggle-buttons").nth(slot).get_by_text(label, exact=True).click()

    run_cell()
    assert "<b>" in page.locator(".widget-html-content strong").inner_text()  # markup in a prompt is text
    box = page.locator(".jp-MarkdownCell").last.inner_text()
    assert "What the paper claims" in box and ":::" not in box  # the book's boxes are boxes here, too
    assert page.locator("img.widget-image").first.bounding_box()["width"] >= 250
    clicked = [(0, "good"), (1, "bad"), (2, "skip"), (0, "bad"), (1, "bad"), (2, "good")]
    for n, (slot, label) in enumerate(clicked, 1):
        mouse(slot, label)
        judged(n)  # on disk at the click
    page.locator("input[placeholder^='type here']").click()
    page.keyboard.type("gbs", delay=60)
    judged(9)
    page.get_by_role("button", name="undo").click()  # the skip
    judged(8)

    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Restart Kernel…", exact=False).first.click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.wait_for_timeout(3000)  # until the status bar has noticed
    run_cell()
    page.get_by_text("8 of 15 images judged by ann").first.wait_for(timeout=60_000)
    page.locator("input[placeholder^='type here']").first.click()
    page.keyboard.type("gbbg", delay=60)
    judged(12)
    page.close()

    table, prompts = store.table(), np.repeat([f"<b>{k}</b> cats." for k in range(5)], 3)
    order = [i for group in widgets.sequence(prompts, "ann") for i in group]
    assert (
        table.image.tolist() == order[:12]
        and table.position.tolist() == list(range(12))
        and set(table.rater) == {"ann"}
    )
    assert table.label.tolist() == [label for _, label in clicked] + [
        "good",
        "bad",
        "good",
        "bad",
        "bad",
        "good",
    ]
    assert table.prompt.tolist() == prompts[order[:12]].tolist() and (table.seconds > 0).all()
    assert table.shown_with[0] == ",".join(map(str, order[:3]))
