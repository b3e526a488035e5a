"""Drawings of what a network reads, and of what it gets: tensors in, RGB images out."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["draw_braille", "draw_confusion", "draw_filters", "draw_images", "mistake_captions"]

Colour = tuple[int, int, int]
WHITE, PALE, GREY, BLACK = (255, 255, 255), (246, 246, 246), (110, 110, 110), (20, 20, 20)
BLUE, RED = (31, 90, 180), (200, 40, 30)
CELL = 40  # pixels a side
COLUMNS = 4  # TensorBoard shows pictures about 350 pixels wide: more would make captions too small to read
ZOOM = 3  # of a digit's pixels
DARK = 0.5  # ink on which text is white
MIDDLE = 127  # of 0-255
BRAILLE = [[1, 8], [2, 16], [4, 32], [64, 128]]  # Unicode's bits of the dots, where they stand


def draw_confusion(counts: Tensor, classes: Sequence[str]) -> Image.Image:
    """Draw how often images of a class (rows) were read as one (columns), with the share of each row that was right.

    The ink is by the share of the row: right in blue, wrong in red, whose ink grows fast where shares are small.

    Args:
        counts: whole numbers (K, K).
        classes: K names.
    """
    font, small = ImageFont.load_default(15), ImageFont.load_default(13)
    margin = round(max(font.getlength(name) for name in classes)) + 14
    top = margin + 28
    totals, size = counts.sum(dim=1), len(classes)
    image = Image.new("RGB", (margin + (size + 1) * CELL + 16, top + size * CELL + 8), WHITE)
    draw = ImageDraw.Draw(image)
    right = int(counts.diagonal().sum())
    draw.text((margin, 6), f"{right:,} of {int(totals.sum()):,} are right; down: is, across: read as", GREY, small)
    for i, name in enumerate([*classes, "right"]):
        x = margin + (i + 0.5) * CELL
        if font.getlength(name) <= CELL:
            draw.text((x, top - 6), name, BLACK, font, anchor="ms")
        else:
            image.paste(upright := _upright(name, font), (round(x - 9), top - 6 - upright.height))
    for row, name in enumerate(classes):
        total, y = max(int(totals[row]), 1), top + row * CELL
        middle = y + CELL / 2 - 1
        draw.text((margin - 7, middle), name, BLACK, font, anchor="rm")
        for column in range(size):
            count = int(counts[row, column])
            ink = count / total if row == column else (count / total) ** 0.3
            x = margin + column * CELL
            colour = _mixed(BLUE if row == column else RED, ink)
            draw.rectangle((x, y, x + CELL - 2, y + CELL - 2), colour if count else PALE)
            if count:
                text = WHITE if ink > DARK else BLACK
                draw.text((x + CELL / 2 - 1, middle), f"{count:,}", text, small, anchor="mm")
        share = f"{int(counts[row, row]) / total:.1%}"
        draw.text((margin + size * CELL + 4, middle), share, BLACK, small, anchor="lm")
    return image


def draw_images(pixels: Tensor, captions: Sequence[str]) -> Image.Image:
    """Draw images in rows of four, dark on light, each with a caption below it.

    Args:
        pixels: 0-255 of any dtype, (N, 1, H, W).
        captions: N texts.
    """
    _, _, height, width = pixels.shape
    font = ImageFont.load_default(14)
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    across, down = ZOOM * width + 16, ZOOM * height + 12 + 18 * lines
    rows = -(-len(captions) // COLUMNS)
    image = Image.new("RGB", (COLUMNS * across, max(rows, 1) * down), WHITE)
    draw = ImageDraw.Draw(image)
    for number, (digit, caption) in enumerate(zip(pixels, captions, strict=True)):
        x, y = number % COLUMNS * across, number // COLUMNS * down
        ink = 255 - digit[0].round().clamp(0, 255).to(torch.uint8)
        picture = Image.fromarray(ink.numpy()).resize((ZOOM * width, ZOOM * height), Image.Resampling.NEAREST)
        image.paste(picture, (x + 8, y + 4))
        draw.text((x + across / 2, y + ZOOM * height + 6), caption, BLACK, font, anchor="ma", align="center")
    return image


def draw_braille(pixels: Tensor) -> list[str]:
    """Draw an image in lines of Braille: a character has two columns of four dots, each dot one pixel of ink.

    Args:
        pixels: 0-255, (H, W); H a multiple of 4, W of 2.

    >>> draw_braille(torch.tensor([[255, 0], [255, 0], [255, 0], [255, 255]]))
    ['⣇']
    """
    height, width = pixels.shape
    dots = (pixels > MIDDLE).view(height // 4, 4, width // 2, 2)
    codes = (dots * torch.tensor(BRAILLE)[None, :, None]).sum(dim=(1, 3))  # (H / 4, W / 2)
    return ["".join(chr(0x2800 + code) for code in line) for line in codes.tolist()]


def mistake_captions(labels: Tensor, probabilities: Tensor, classes: Sequence[str]) -> list[str]:
    """Return what each image is, what it was read as, and how sure the network was: `4 as 9, 97%`.

    Names of more than a letter or two take three lines.

    Args:
        labels: (N,).
        probabilities: (N, K).
        classes: K names.
    """
    sure, read = probabilities.max(dim=1)
    rows = zip(labels.tolist(), read.tolist(), sure.tolist(), strict=True)
    form = "{} as {}, {:.0%}" if max(map(len, classes)) < len("two") else "{}\nas {}\n{:.0%}"
    return [form.format(classes[label], classes[digit], share) for label, digit, share in rows]


def draw_filters(weight: Tensor) -> Image.Image:
    """Draw the first layer's filters: what each adds for in blue, and against in red.

    Args:
        weight: (C, 1, K, K).
    """
    count, _, side, _ = weight.shape
    zoom, across = 36 // side + 1, 2 * COLUMNS
    step = side * zoom + 6
    image = Image.new("RGB", (across * step + 6, -(-count // across) * step + 6), WHITE)
    most = weight.abs().max().clamp(min=1e-9)
    for number, part in enumerate(weight[:, 0] / most):
        share = part[..., None]  # (K, K, 1), -1 to 1
        colours = torch.where(share > 0, torch.tensor(BLUE), torch.tensor(RED))
        picture = Image.fromarray((255 + (colours - 255) * share.abs()).to(torch.uint8).numpy())
        picture = picture.resize((side * zoom, side * zoom), Image.Resampling.NEAREST)
        image.paste(picture, (number % across * step + 6, number // across * step + 6))
    return image


def _mixed(colour: Colour, share: float) -> Colour:
    """Return a colour, on white, of so much ink."""
    red, green, blue = (round(255 + (part - 255) * share) for part in colour)
    return red, green, blue


def _upright(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """Return a text that is read from below."""
    image = Image.new("RGB", (round(font.getlength(text)) + 2, 18), WHITE)
    ImageDraw.Draw(image).text((1, 9), text, BLACK, font, anchor="lm")
    return image.transpose(Image.Transpose.ROTATE_90)
