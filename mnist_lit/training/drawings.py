"""Pictures of confusion matrices and images: tensors in, RGB images out."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["MAX_CLASSES", "draw_confusion", "draw_images", "mistake_captions"]

WHITE, LIGHT_GREY, GREY, BLACK = (255, 255, 255), (246, 246, 246), (110, 110, 110), (20, 20, 20)
BLUE, RED = (31, 90, 180), (200, 40, 30)
CELL = 40  # side of a cell of the confusion matrix, pixels
GAMMA = 0.3  # exponent of the error fractions: without it, small ones would be invisible
WHITE_TEXT_INTENSITY = 0.5  # text is white on more intense colours
COLUMNS = 4  # TensorBoard shows pictures about 350 pixels wide: with more columns, captions would be too small
MAX_SIDE, MAX_ZOOM = 96, 3  # largest side, in pixels, and zoom of a drawn image
MAX_CLASSES = 100  # of which a confusion matrix is drawn: more would be millions of pixels
MAX_NAME = 14  # letters of a class name in a caption
MAX_CAPTION_NAME = 2  # letters of a class name in a caption of one line


def draw_confusion(counts: Tensor, classes: Sequence[str]) -> Image.Image:
    """Draw a confusion matrix, rows are true and columns predicted classes, with the recall of each class.

    Correct classifications are blue and errors red, the more intense the larger their fraction of the row.

    Args:
        counts: int64 (K, K).
        classes: K names.
    """
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    left = round(max(font.getlength(name) for name in classes)) + 14
    top = left + 28
    totals, size = counts.sum(dim=1), len(classes)
    title = f"{counts.diagonal().sum():,} of {counts.sum():,} correct; rows: true class, columns: predicted class"
    width = left + max((size + 1) * CELL + 16, round(small.getlength(title)) + 8)
    image = Image.new("RGB", (width, top + size * CELL + 8), WHITE)
    draw = ImageDraw.Draw(image)
    draw.text((left, 6), title, GREY, small)
    for i, name in enumerate([*classes, "recall"]):
        x = left + (i + 0.5) * CELL
        if font.getlength(name) <= CELL:
            draw.text((x, top - 6), name, BLACK, font, anchor="ms")
        else:
            image.paste(text := _vertical_text(name, font), (round(x - 9), top - 6 - text.height))
    for row, name in enumerate(classes):
        total, y = max(int(totals[row]), 1), top + row * CELL
        middle = y + CELL / 2 - 1
        draw.text((left - 7, middle), name, BLACK, font, anchor="rm")
        for column in range(size):
            count, x = int(counts[row, column]), left + column * CELL
            correct, fraction = row == column, count / total
            intensity = fraction if correct else fraction**GAMMA
            full = BLUE if correct else RED
            red, green, blue = (round(255 + (channel - 255) * intensity) for channel in full)
            draw.rectangle((x, y, x + CELL - 2, y + CELL - 2), (red, green, blue) if count else LIGHT_GREY)
            if count:
                text_colour = WHITE if intensity > WHITE_TEXT_INTENSITY else BLACK
                draw.text((x + CELL / 2 - 1, middle), f"{count:,}", text_colour, small, anchor="mm")
        recall = f"{int(counts[row, row]) / total:.1%}" if counts[row].any() else "–"
        draw.text((left + size * CELL + 4, middle), recall, BLACK, small, anchor="lm")
    return image


def draw_images(
    pixels: Tensor, captions: Sequence[str], *, inverted: bool = True, columns: int = COLUMNS
) -> Image.Image:
    """Draw images in a grid, each with a caption below it.

    Args:
        pixels: 0-255 of any dtype, (N, C, H, W).
        captions: N strings.
        inverted: whether to draw light on dark as dark on light.
        columns: number of columns of the grid.
    """
    pixels = pixels.float()
    if (side := max(pixels.shape[2:])) > MAX_SIDE:
        pixels = interpolate(pixels, scale_factor=MAX_SIDE / side, mode="area")
    _, _, height, width = pixels.shape
    zoom = max(1, min(MAX_ZOOM, MAX_SIDE // side))
    font = ImageFont.load_default(14)
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    longest = max((font.getlength(line) for caption in captions for line in caption.split("\n")), default=0)
    cell_width, cell_height = max(zoom * width, round(longest)) + 16, zoom * height + 12 + 18 * lines
    rows = -(-len(captions) // columns)
    image = Image.new("RGB", (columns * cell_width, max(rows, 1) * cell_height), WHITE)
    draw = ImageDraw.Draw(image)
    levels = pixels.round().clamp(0, 255).to(torch.uint8)
    levels = (255 - levels if inverted else levels).permute(0, 2, 3, 1)  # (N, H, W, C)
    for i, (picture, caption) in enumerate(zip(levels, captions, strict=True)):
        x, y = i % columns * cell_width, i // columns * cell_height
        shown = Image.fromarray((picture if picture.shape[2] == len(WHITE) else picture[..., 0]).numpy())
        enlarged = shown.resize((zoom * width, zoom * height), Image.Resampling.NEAREST)
        image.paste(enlarged, (x + (cell_width - zoom * width) // 2, y + 4))
        draw.text((x + cell_width / 2, y + zoom * height + 6), caption, BLACK, font, anchor="ma", align="center")
    return image


def mistake_captions(labels: Tensor, probabilities: Tensor, classes: Sequence[str]) -> list[str]:
    """Return captions of misclassified images: true class, predicted class and its confidence, `4 as 9, 97%`.

    Longer names of classes take three lines.

    Args:
        labels: (N,).
        probabilities: (N, K).
        classes: K names.
    """
    confidences, predictions = probabilities.max(dim=1)
    rows = zip(labels.tolist(), predictions.tolist(), confidences.tolist(), strict=True)
    form = "{} as {}, {:.0%}" if max(map(len, classes)) <= MAX_CAPTION_NAME else "{}\nas {}\n{:.0%}"
    names = [name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…" for name in classes]
    return [form.format(names[label], names[predicted], confidence) for label, predicted, confidence in rows]


def _vertical_text(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """Return a picture of a text from bottom to top."""
    image = Image.new("RGB", (round(font.getlength(text)) + 2, 18), WHITE)
    ImageDraw.Draw(image).text((1, 9), text, BLACK, font, anchor="lm")
    return image.transpose(Image.Transpose.ROTATE_90)
