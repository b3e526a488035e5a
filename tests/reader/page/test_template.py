"""The page in a browser: it is drawn on, opens pictures, and answers as `predict --images` does."""

import base64
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from helpers.browser import BROWSER, open_browser
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from reader.helpers.drawing import STROKES, draw, settle
from reader.helpers.pages import page_of
from reader.helpers.photographs import photograph
from reader.helpers.sheets import PAPERS, photographed, sheet, written

from mnist_lit import DigitClassifier
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.images import crop_square, open_image, open_square
from mnist_lit.reader.novelty import NoveltyNetwork
from mnist_lit.reader.preprocess import as_mnist

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, FloatRect, Page

pytestmark = [
    pytest.mark.slow,  # with a browser
    pytest.mark.skipif(not BROWSER, reason="no Chromium: install Debian's package chromium"),
    pytest.mark.skipif(not find_spec("playwright"), reason="no playwright: pip install -e '.[dev]'"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def context(browser: "Browser") -> Iterator["BrowserContext"]:
    """A window that must request nothing but files of the test, and report no error."""
    context = browser.new_context(has_touch=True)
    found: list[str] = []
    context.on("request", lambda request: found.append(request.url))
    context.on("console", lambda message: found.append(message.text))
    context.on("weberror", lambda error: found.append(str(error.error)))
    yield context
    context.close()
    assert [text for text in found if not text.startswith("file://")] == []


@pytest.fixture
def page(context: "BrowserContext", fast: DigitClassifier, tmp_path: Path) -> "Page":
    """A page with a network of 99 %."""
    return open_page(context, tmp_path, page_of(fast))


def open_page(context: "BrowserContext", folder: Path, content: str) -> "Page":
    path = folder / "page.html"
    path.write_text(content, encoding="utf-8")
    page = context.new_page()
    page.goto(path.as_uri())
    return page


def open_picture(page: "Page", path: Path) -> None:
    page.get_by_label("Open a picture").set_input_files(path)
    settle(page, f"picture?.name === {json.dumps(path.name)}")


def answer(page: "Page") -> str:
    return page.locator("#answer").inner_text()


def decoded(page: "Page", canvas: str) -> Image.Image:
    """Return the picture in a canvas of the page."""
    url = page.evaluate(f"{canvas}.toDataURL()")
    return Image.open(BytesIO(base64.b64decode(url.partition(",")[2])))


def seen(page: "Page") -> NDArray[np.uint8]:
    """Return the picture that the page shows as the one that the network sees, (H, W, 3)."""
    return np.asarray(decoded(page, "element.seen").convert("RGB"))


def check_prepared(page: "Page", path: Path, largest: float = 0.5) -> bool:
    """Expect the page to prepare a picture, or to refuse it, as `predict` does; return whether it is prepared.

    `largest` is the largest mean difference of grey levels.
    """
    open_picture(page, path)
    try:
        expected: NDArray[np.uint8] | str = as_mnist(open_image(str(path)))
    except ValueError as error:
        expected = str(error)
    if isinstance(expected, str):
        assert answer(page) == expected
        return False
    assert np.abs(seen(page)[..., 0] - expected.astype(float)).mean() < largest
    return True


@pytest.mark.parametrize("device", ["mouse", pytest.param("touch", marks=pytest.mark.slow)])
def test_all_digits_that_are_drawn_are_read_as_by_predict(
    page: "Page", fast: DigitClassifier, tmp_path: Path, device: str
) -> None:
    right = 0
    for digit, strokes in enumerate(STROKES):
        draw(page, strokes, touch=device == "touch")
        decoded(page, "paper").save(drawing := tmp_path / "drawing.png")
        prepared = as_mnist(open_image(str(drawing)))
        assert np.abs(seen(page)[..., 0] - prepared.astype(float)).mean() < 0.5, "grey levels"
        with torch.inference_mode():
            expected = int(fast(torch.from_numpy(prepared)[None, None]).argmax())
        assert answer(page)[0] == str(expected)
        right += expected == digit
        page.keyboard.press("Escape")
        settle(page)
    assert right >= 9


def test_probabilities_are_those_of_the_network(page: "Page", fast: DigitClassifier, data_dir: Path) -> None:
    pixels = MNIST.read(data_dir, train=False)[0][:1000]
    text = base64.b64encode(pixels.numpy().tobytes()).decode()
    found = page.evaluate(
        """(text) => {
          const pixels = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
          const rows = [];
          for (let i = 0; i < pixels.length; i += 784)
            rows.push([...run(model, pixels.subarray(i, i + 784)).probabilities.data]);
          return rows;
        }""",
        text,
    )
    with torch.inference_mode():
        expected = (fast(pixels) / fast.temperature).softmax(dim=1)
    computed = torch.tensor(found)
    assert float((computed - expected).abs().max()) < 1e-4
    assert torch.equal(computed.argmax(dim=1), expected.argmax(dim=1))


def test_bars_feature_maps_and_picture_follow_the_drawing(page: "Page") -> None:
    titles = page.locator("#maps h2").all_inner_texts()
    captions = page.locator("#maps figcaption").all_inner_texts()
    assert titles == ["layer1", "layer2", "layer3"]
    assert captions == ["16 feature maps of 8×8", "48 feature maps of 3×3", "128 feature maps of 1×1"]
    empty = page.evaluate("blocks.map(({canvas}) => canvas.toDataURL())")
    assert page.locator("#bars li").all_inner_texts() == [f"{digit}\n–" for digit in range(10)]
    draw(page, STROKES[7])
    assert answer(page).startswith("7")
    rows = [text.split("\n") for text in page.locator("#bars li").all_inner_texts()]
    percentages = [float(text.strip(">%")) for _, text in rows]
    assert percentages.index(max(percentages)) == 7
    assert 99 < sum(percentages) < 101
    assert all(map(str.__ne__, empty, page.evaluate("blocks.map(({canvas}) => canvas.toDataURL())")))
    assert page.evaluate("[element.seen.width, element.seen.height]") == [28, 28]
    assert page.evaluate("blocks[2].canvas.width * blocks[2].canvas.height") == 128, "no gaps between maps of a pixel"


def test_undo_and_clear_by_button_and_by_keyboard(page: "Page") -> None:
    draw(page, STROKES[4])
    assert answer(page)[0] == "4"
    page.keyboard.press("Control+z")
    settle(page)
    assert page.evaluate("strokes.length") == 1
    page.get_by_role("button", name="Undo").click()
    settle(page)
    assert (answer(page), page.evaluate("strokes.length")) == ("", 0)
    draw(page, STROKES[1])
    page.get_by_role("button", name="Clear").click()
    settle(page)
    assert answer(page) == ""
    assert page.locator("#bars li").first.inner_text() == "0\n–"
    page.get_by_role("button", name="Undo").click()
    settle(page)
    assert answer(page)[0] == "1", "clearing can be undone"


def test_what_is_no_digit_is_doubted(page: "Page", tmp_path: Path) -> None:
    picture = Image.new("L", (200, 200), 225)
    ImageDraw.Draw(picture).line(
        [(30, 100), (170, 100), (130, 60), (170, 100), (130, 140)], fill=30, width=9
    )  # an arrow
    picture.save(path := tmp_path / "arrow.png")
    open_picture(page, path)
    assert re.match(r"\?\s+perhaps no digit; if it is one: \d, ", answer(page))
    found = page.evaluate("[...run(model.novelty, asMNIST(picture.channels)).probabilities.data]")
    with torch.inference_mode():
        expected = NoveltyNetwork.load()(torch.from_numpy(as_mnist(open_image(str(path))))[None, None]).softmax(dim=1)
    assert found == pytest.approx(expected[0].tolist(), abs=1e-4)


def test_clearing_and_undoing_within_a_stroke(page: "Page") -> None:
    page.mouse.move(100, 150)
    page.mouse.down()
    for key in ("Escape", "Control+z", "Control+z"):
        page.keyboard.press(key)
        page.mouse.move(150, 200, steps=3)
    page.mouse.up()
    settle(page)
    assert (answer(page), page.evaluate("strokes.length")) == ("", 0)


def test_what_is_no_single_digit_gets_the_message_of_predict(page: "Page", tmp_path: Path) -> None:
    draw(page, [[(x / 2 + shift, y) for x, y in stroke] for stroke in STROKES[1] for shift in (0, 0.5)])
    assert answer(page) == "more than one digit in it: crop it to one"
    Image.new("L", (40, 60), 200).save(path := tmp_path / "blanarrow.png")
    open_picture(page, path)
    assert answer(page) == "no digit in it: it looks blank"


def test_answer_of_low_probability_is_unsure(context: "BrowserContext", fast: DigitClassifier, tmp_path: Path) -> None:
    hesitant = DigitClassifier(**fast.hparams).eval()
    hesitant.load_state_dict(fast.state_dict())
    hesitant.temperature.fill_(50)
    page = open_page(context, tmp_path, page_of(hesitant))
    draw(page, STROKES[3])
    assert re.fullmatch(r"3 1\d\.\d% \(unsure: or \d, (9|1\d)\.\d%\)", answer(page))


@pytest.mark.parametrize(("temperature", "text"), [(1.0, "not calibrated"), (1.2, "are calibrated on validation")])
def test_calibration_is_said(context: "BrowserContext", tmp_path: Path, temperature: float, text: str) -> None:
    classifier = DigitClassifier(channels=[2]).eval()
    classifier.temperature.fill_(temperature)
    page = open_page(context, tmp_path, page_of(classifier))
    assert text in page.locator("#calibration").inner_text()


def test_opened_photographs_are_prepared_as_predict_does(page: "Page", data_dir: Path, tmp_path: Path) -> None:
    digits = MNIST.read(data_dir, train=False)[0][:, 0].numpy()
    Image.fromarray(255 - digits[0][4:24, 4:24]).save(small := tmp_path / "small.png")
    for number in range(12):
        content, suffix = photograph(digits[number], np.random.default_rng(number))
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(content if number else small.read_bytes())
        check_prepared(page, path, largest=3)  # browsers decode a little otherwise


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("number", [1, 0], ids=["digit", "empty"])
def test_lines_of_the_paper_are_left_out_as_by_predict(
    page: "Page", paper: str, number: int, data_dir: Path, tmp_path: Path
) -> None:
    rng, digit = np.random.default_rng(0), MNIST.read(data_dir, train=False)[0][0, 0].numpy()
    ink, _ = written([[number * digit]], rng)
    picture = photographed(ink, sheet(ink.shape, paper, 90, 4), rng, 2)[..., 0]
    Image.fromarray(picture.astype(np.uint8)).save(path := tmp_path / "paper.png")
    assert check_prepared(page, path) or number == 0


@pytest.mark.parametrize("size", [(6, 28), (1, 30), (40, 200)])
def test_pictures_cut_out_tightly_are_prepared_as_predict_does(
    page: "Page", size: tuple[int, int], tmp_path: Path
) -> None:
    width, height = size
    pixels = np.full((height, width), 230, dtype=np.uint8)
    left, right = width // 3, width // 3 + max(1, width // 4)
    pixels[2:-2, left:right] = 20
    # Where a symmetric one is centred depends on rounding.
    pixels[2 : height // 4, (left + right) // 2 : right] = 150
    Image.fromarray(pixels).save(path := tmp_path / "one.png")
    check_prepared(page, path)


@pytest.mark.parametrize("ink", [(20, 30, 120), (250, 240, 220)], ids=["dark", "light"])
def test_ink_on_a_transparent_background(page: "Page", ink: tuple[int, int, int], tmp_path: Path) -> None:
    picture = Image.new("RGBA", (120, 160), (0, 0, 0, 0))
    ImageDraw.Draw(picture).line([(40, 30), (80, 30), (60, 80), (55, 130)], fill=(*ink, 255), width=10)
    picture.save(path := tmp_path / "seven.png")
    assert check_prepared(page, path)


def test_file_that_cannot_be_opened_is_named(page: "Page", tmp_path: Path) -> None:
    (text := tmp_path / "notes.txt").write_text("3", encoding="utf-8")
    open_file = page.get_by_label("Open a picture").set_input_files
    open_file(text)
    page.get_by_text("notes.txt: not a picture that this browser can open").wait_for()
    Image.new("1", (8_000, 5_100)).save(large := tmp_path / "large.png")
    open_file(large)
    page.get_by_text("large.png: 8000 x 5100 pixels are too many: make it smaller").wait_for()


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_picture_is_pasted_or_dropped(page: "Page", event: str) -> None:
    draw(page, STROKES[2])
    content = page.evaluate("paper.toDataURL()").partition(",")[2]  # in base64
    page.keyboard.press("Escape")
    page.evaluate(
        """([event, content]) => {
          const data = new DataTransfer();
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          data.items.add(new File([bytes], "two.png", { type: "image/png" }));
          document.dispatchEvent(event === "paste"
            ? new ClipboardEvent("paste", { clipboardData: data }) : new DragEvent("drop", { dataTransfer: data }));
        }""",
        [event, content],
    )
    settle(page, 'picture?.name === "two.png"')
    assert answer(page)[0] == "2"


def test_photographs_are_opened_cropped_and_named_by_class(context: "BrowserContext", tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = ["<b>cat</b>", "dog & fox", "bird" * 20]
    classifier = DigitClassifier(channels=[4], shape=(3, 24, 24), classes=3).eval()
    page = open_page(context, tmp_path, page_of(classifier, (3, 24, 24), names))
    assert page.title() == "Show a picture"
    assert [text.split("\n")[0] for text in page.locator("#bars li").all_inner_texts()] == names
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((151, 90), Image.Resampling.NEAREST)  # with sharp edges
    picture.save(path := tmp_path / "picture.png")
    open_picture(page, path)
    expected = crop_square(open_image(str(path), for_square=True), 24, 3)  # (3, 24, 24)
    assert np.abs(seen(page).transpose(2, 0, 1) - expected.astype(float)).max() <= 1
    with torch.inference_mode():
        best = int(classifier(torch.from_numpy(expected)[None]).argmax())
    assert answer(page).startswith(names[best])
    outside, edge = page.evaluate("[20, 49].map((x) => [...pen.getImageData(x, 108, 1, 1).data])")
    assert edge[2] > 200 > edge[0], "the outline of the square is blue"
    assert outside[:3] == pytest.approx(pixels[2, 0] / 2, abs=2), "what is beside it is dark"
    draw(page, STROKES[1])
    assert page.evaluate("strokes.length") == 0, "nothing is drawn on photographs"
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    bars = [bar.bounding_box() for bar in page.locator(".bar").all()]
    assert len({(bar["x"], bar["width"]) for bar in bars if bar}) == 1, "bars of all classes can be compared"


def test_photographs_are_padded_where_the_training_images_were(context: "BrowserContext", tmp_path: Path) -> None:
    classifier = DigitClassifier(channels=[4], shape=(3, 24, 24), classes=3).eval()
    page = open_page(context, tmp_path, page_of(classifier, (3, 24, 24), ["a", "b", "c"], fit="pad"))
    for shape in ((6, 9, 3), (9, 4, 3)):
        pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((16 * shape[1] + 1, 16 * shape[0]), Image.Resampling.NEAREST)
        picture.save(path := tmp_path / f"{shape[0]}.png")
        open_picture(page, path)
        expected = open_square(str(path), 24, 3, "pad")  # (3, 24, 24)
        assert np.abs(seen(page).transpose(2, 0, 1) - expected.astype(float)).max() <= 2


def test_phones_have_the_answer_above_the_buttons(browser: "Browser", fast: DigitClassifier, tmp_path: Path) -> None:
    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740})
    page = open_page(context, tmp_path, page_of(fast))

    def box(selector: str) -> "FloatRect":
        found = page.locator(selector).bounding_box()
        assert found
        return found

    tops = [box(selector)["y"] for selector in ("#paper", "#answer", "#undo", "#hint", "#bars", "#seen")]
    assert tops == sorted(tops)
    assert box("#undo")["y"] + box("#undo")["height"] < 740, "they are reached without scrolling"
    assert not page.locator(".keyboard").is_visible()
    assert page.locator(".camera").is_visible()
    page.set_viewport_size({"width": 740, "height": 360})
    assert box("#paper")["y"] + box("#paper")["height"] < 360
    assert box("#answer")["x"] > box("#paper")["x"] + box("#paper")["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 740
    context.close()


def test_narrow_and_dark_windows(page: "Page") -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    draw(page, STROKES[5])
    assert page.evaluate("document.documentElement.scrollWidth") <= 320, "no scrolling to the side"
    assert answer(page)[0] == "5"
    light = page.evaluate("[getComputedStyle(document.body).backgroundColor, paper.toDataURL()]")
    page.emulate_media(color_scheme="dark")
    settle(page, "pen.getImageData(0, 0, 1, 1).data[0] < 128")
    both = zip(
        light, page.evaluate("[getComputedStyle(document.body).backgroundColor, paper.toDataURL()]"), strict=True
    )
    assert all(one != other for one, other in both)
    page.keyboard.press("Control+z")
    draw(page, STROKES[5])
    assert answer(page)[0] == "5"


def test_texts_have_the_contrast_that_wcag_asks_for(page: "Page") -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for selector in ("h1", "#hint", "#clear", "figcaption"):
            style = page.evaluate(
                """(selector) => {
                  const style = getComputedStyle(document.querySelector(selector));
                  return [style.color, selector === "#clear" ? style.backgroundColor
                    : getComputedStyle(document.body).backgroundColor];
                }""",
                selector,
            )
            high, low = sorted((luminance(colour) for colour in style), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, selector)


def luminance(colour: str) -> float:
    """Return the relative luminance of `rgb(r, g, b)` (WCAG 2.2)."""
    values = np.array(json.loads(f"[{colour.partition('(')[2].rstrip(')')}]")) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_controls_have_names_and_the_answer_is_announced(page: "Page") -> None:
    for name in ("Undo", "Clear"):
        assert page.get_by_role("button", name=name).count() == 1
    assert page.get_by_role("img", name="the picture that the network sees, 28×28 pixels").count() == 1
    assert page.get_by_label("Open a picture").count() == 1
    assert page.get_by_label("paper to draw a digit on").count() == 1
    assert page.locator("output#answer").get_attribute("aria-live") == "polite"


def test_template_without_a_network_says_how_to_get_one(context: "BrowserContext") -> None:
    from mnist_lit.reader.page.html import TEMPLATE

    page = context.new_page()
    page.goto(TEMPLATE.as_uri())
    draw(page, STROKES[2])
    assert seen(page).max() == 255
    assert "export --output FILE.html" in page.locator("#calibration").inner_text()
