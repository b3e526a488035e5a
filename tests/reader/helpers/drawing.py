"""Draw digits on the page of `export`, in a browser.

In the folder `tests`, `python -m reader.helpers.drawing PAGE` renews the screenshots of the page in `docs/`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Literal

from conftest import TRAIN
from helpers.browser import open_browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["STROKES", "draw", "settle"]

Point = tuple[float, float]
COLOUR_SCHEMES: dict[Literal["light", "dark"], str] = {"light": "page.png", "dark": "page_dark.png"}
STROKES: list[list[list[Point]]] = [
    [[(0.5, 0.2), (0.37, 0.32), (0.34, 0.55), (0.42, 0.75), (0.55, 0.78), (0.65, 0.6), (0.62, 0.33), (0.5, 0.2)]],
    [[(0.53, 0.2), (0.5, 0.5), (0.48, 0.8)]],
    [[(0.35, 0.33), (0.45, 0.21), (0.6, 0.24), (0.62, 0.4), (0.48, 0.6), (0.34, 0.78), (0.5, 0.76), (0.68, 0.78)]],
    [[(0.35, 0.25), (0.52, 0.2), (0.63, 0.31), (0.48, 0.46), (0.63, 0.58), (0.6, 0.74), (0.47, 0.8), (0.34, 0.74)]],
    [[(0.42, 0.2), (0.33, 0.54), (0.68, 0.52)], [(0.6, 0.3), (0.56, 0.82)]],
    [[(0.65, 0.22), (0.41, 0.23), (0.38, 0.46), (0.55, 0.45), (0.64, 0.58), (0.58, 0.75), (0.45, 0.8), (0.34, 0.73)]],
    [[(0.6, 0.2), (0.44, 0.38), (0.37, 0.6), (0.43, 0.77), (0.57, 0.78), (0.63, 0.65), (0.53, 0.55), (0.39, 0.64)]],
    [[(0.33, 0.24), (0.66, 0.23), (0.54, 0.5), (0.46, 0.8)]],
    [[(0.6, 0.27), (0.48, 0.2), (0.38, 0.3), (0.47, 0.46), (0.61, 0.62), (0.55, 0.79), (0.41, 0.76), (0.39, 0.63),
      (0.52, 0.46), (0.61, 0.33), (0.6, 0.27)]],
    [[(0.62, 0.33), (0.5, 0.21), (0.38, 0.32), (0.45, 0.47), (0.6, 0.4), (0.62, 0.3), (0.6, 0.55), (0.55, 0.8)]],
]  # fmt: skip
"""How a person might write each digit: strokes through points, as fractions of the paper's sides."""


def draw(page: "Page", strokes: Sequence[Sequence[Point]], *, touch: bool = False) -> None:
    """Draw strokes on the paper with the mouse or a finger."""
    box = page.locator("#paper").bounding_box()
    assert box
    finger = page.context.new_cdp_session(page)
    for stroke in strokes:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        for number, (x, y) in enumerate(points):
            if touch:
                kind = "touchMove" if number else "touchStart"
                finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
            else:
                page.mouse.move(x, y, steps=2)
                if not number:
                    page.mouse.down()
        if touch:
            finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        else:
            page.mouse.up()
    settle(page)


def settle(page: "Page", condition: str = "true") -> None:
    """Wait until a condition holds, and what was drawn or opened is classified."""
    end = monotonic() + 30
    while not page.evaluate(f"({condition}) && !waiting"):  # the page's policy forbids `wait_for_function`
        assert monotonic() < end, f"{condition} does not hold"
        page.wait_for_timeout(10)


def take_page(path: Path) -> None:
    """Take the screenshots of a page with a digit that is drawn on it, sharp on screens with many pixels."""
    with open_browser() as browser:
        for scheme, name in COLOUR_SCHEMES.items():
            page = browser.new_page(viewport={"width": 1000, "height": 620}, device_scale_factor=2, color_scheme=scheme)
            page.goto(path.absolute().as_uri())
            draw(page, STROKES[3])
            page.screenshot(path=TRAIN.parent / "docs" / name)


if __name__ == "__main__":
    take_page(Path(sys.argv[1]))
