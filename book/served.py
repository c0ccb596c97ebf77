"""A folder served to a browser on this machine, and the browser."""

import contextlib
import http.server
import shutil
import threading
from pathlib import Path


@contextlib.contextmanager
def served(folder):
    """The address of a server of `folder`, for a while."""
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def launched(playwright):
    """A Chromium from the PATH, or the one that `playwright install chromium` brings; None without either."""
    own = Path(playwright.chromium.executable_path)
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), own if own.exists() else None)
    still = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return playwright.chromium.launch(executable_path=found, args=still) if found else None


def settle(page):
    """Wait for a page's formulas, widgets and pictures."""
    page.wait_for_timeout(700)
    page.wait_for_function(
        """() => [...document.images].every((of) => of.complete || of.loading === "lazy")
          && (!window.MathJax?.startup?.promise || !document.querySelector(".math")
              || document.querySelector("mjx-container"))
          && [...document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]')]
               .every((of) => of.parentElement.querySelector(".jupyter-widgets"))""",
        timeout=30_000,
    )
