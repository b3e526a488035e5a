"""TensorBoard in a browser."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

__all__ = ["BROWSER", "find_chart", "find_image", "open_browser", "open_tensorboard"]

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def open_browser() -> Iterator["Browser"]:
    """Start the browser, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def open_tensorboard(runs: Path) -> Iterator["Page"]:
    """Start TensorBoard on a folder of runs, and open it."""
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={runs}", "--host=127.0.0.1", "--port=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, open_browser() as browser:
        try:
            assert server.stderr
            address = next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
            page = browser.new_page(viewport={"width": 1500, "height": 900})
            page.goto(address)
            yield page
        finally:
            server.terminate()


def find_chart(page: "Page", name: str) -> "Locator":
    """Return a chart of training and validation, after its two curves were rendered."""
    page.goto(f"{page.url.partition('#')[0]}#custom_scalars")
    chart = page.locator("tf-custom-scalar-multi-line-chart-card", has_text=name)
    chart.get_by_text("Matches (2)").wait_for()
    chart.locator("path.line[d^=M]").nth(1).wait_for(state="attached")
    return chart


def find_image(page: "Page", tag: str) -> "Locator":
    """Return the image of a tag, after it was rendered."""
    page.goto(f"{page.url.partition('#')[0]}#images")
    group = page.locator("tf-image-dashboard tf-category-paginated-view", has_text=tag.partition("/")[0])
    image = group.locator("tf-image-loader", has_text=tag).locator("img")
    heading = group.locator("button.heading")
    heading.wait_for()
    if not group.locator("tf-image-loader").count():
        heading.click()
    image.wait_for()
    return image
