"""Train the network that tells digits from anything else, or report how often it is right.

    python tests/reader/train_novelty.py [--train] [FOLDER …]

It is trained on MNIST's training images, and on drawings that are not digits: digits that are turned, mirrored,
superposed, or composed of two; letters of one font; strokes and arcs; blotches. It is evaluated on what it was not
trained on: MNIST's validation images; shapes, scribbles and textures; and pictures in the folders given.
"""

import sys
from collections import Counter
from collections.abc import Callable
from string import ascii_letters
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.interpolate import CubicSpline
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import trange

from mnist_lit.datasets.augmentation import Augmentation
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.datasets.images import find_images, open_image
from mnist_lit.datasets.sampling import split
from mnist_lit.reader.normalize import normalize
from mnist_lit.reader.novelty import MAX_NOVELTY, WEIGHTS, NoveltyNetwork
from mnist_lit.reader.preprocess import as_mnist

Image28 = NDArray[np.uint8]
Draw = Callable[[np.random.Generator], Image28]

NUMBER = 110_000  # of drawings: twice as many as digits
EPOCHS, BATCH_SIZE, LEARNING_RATE, LABEL_SMOOTHING = 4, 200, 0.006, 0.02
SYMMETRIC = (0, 1, 8)
LETTERS = [letter for letter in ascii_letters if letter not in "OISZBGQLolizsgqbay"]  # which look like digits
SIZE = 84  # pixels of a drawing's side, before it is normalised
FORMS = 8


def digit_drawings(digits: Image28, labels: NDArray[np.int64]) -> list[Draw]:
    """Return functions that make drawings of digits (N, 28, 28) which are no digits any more."""

    def pick(rng: np.random.Generator, but: tuple[int, ...] = ()) -> int:
        while labels[i := int(rng.integers(len(digits)))] in but:
            pass
        return i

    def composed(rng: np.random.Generator) -> Image28:
        i = pick(rng)
        j, cut = pick(rng, (int(labels[i]),)), int(rng.integers(11, 18))
        result = np.array(digits[i])
        part = (slice(cut, None), slice(None)) if rng.random() < 0.5 else (slice(None), slice(cut, None))
        result[part] = digits[j][part]
        return result

    def turned(rng: np.random.Generator) -> Image28:
        i, change = pick(rng, SYMMETRIC), int(rng.integers(4))
        if change == 0:
            return np.asarray(digits[i][:, ::-1])
        if change == 1:  # half a turn leaves digits that look like one
            return np.asarray(digits[i].T if labels[i] in {2, 5, 6, 9} else np.rot90(digits[i], 2))
        return np.rot90(digits[i], change if change == 3 else 1)

    def superposed(rng: np.random.Generator) -> Image28:
        shift = rng.integers(-6, 7, 2).tolist()
        return np.asarray(np.maximum(digits[pick(rng)], np.roll(digits[pick(rng)], shift, (0, 1))))

    return [composed, composed, composed, turned, turned, turned, superposed]


def blotches(rng: np.random.Generator) -> Image28:
    """Return noise, smoothed and cut off."""
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (40, 40)), rng.uniform(1, 5))
    return np.asarray(255 * (noise > np.quantile(noise, rng.uniform(0.4, 0.9))), dtype=np.uint8)


def strokes(rng: np.random.Generator) -> Image28:
    """Return one to four curves, straight strokes between places of a grid, or arcs."""
    image = Image.new("L", (SIZE, SIZE))
    draw, width = ImageDraw.Draw(image), int(rng.integers(4, 10))
    curved = rng.random() < 0.6
    for _ in range(int(rng.integers(1, 5))):
        if curved and rng.random() < 0.7:
            number = int(rng.integers(3, 8))
            curve = CubicSpline(np.arange(number), rng.uniform(8, SIZE - 8, (number, 2)))
            points = curve(np.linspace(0, number - 1, 60)).clip(4, SIZE - 4)
        else:
            number = int(rng.integers(2, 5))
            grid = np.stack([30 * rng.integers(0, 3, number), 20 * rng.integers(0, 4, number)], axis=1)
            points = grid + 12 + rng.normal(0, 3, (number, 2))
        draw.line([(float(x), float(y)) for x, y in points], fill=255, width=width, joint="curve")
        if rng.random() < 0.25:
            (x, y), radius, start = rng.uniform(20, 64, 2), rng.uniform(8, 25), rng.uniform(0, 360)
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.arc(box, start, start + rng.uniform(90, 360), fill=255, width=width)
    return np.asarray(image.resize((SIZE // 2, SIZE // 2), Image.Resampling.BILINEAR))


def letter(rng: np.random.Generator) -> Image28:
    """Return a letter that does not look like a digit."""
    image = Image.new("L", (2 * SIZE, 2 * SIZE))
    name, font = LETTERS[int(rng.integers(len(LETTERS)))], ImageFont.load_default(SIZE)
    position, bold = (SIZE, SIZE), float(rng.integers(0, 5))
    ImageDraw.Draw(image).text(position, name, fill=255, font=font, anchor="mm", stroke_width=bold)
    slant = rng.uniform(-0.2, 0.5)
    slanted = image.transform(image.size, Image.Transform.AFFINE, (1, slant, -slant * SIZE, 0, 1, 0))
    return np.asarray(slanted.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def drawings(number: int, kinds: list[Draw], rng: np.random.Generator) -> Image28:
    """Return drawings as MNIST's digits are, (N, 28, 28)."""
    found: list[Image28] = []
    while len(found) < number:
        image = kinds[int(rng.integers(len(kinds)))](rng)
        rows, columns = (np.flatnonzero((image > 40).any(axis)) for axis in (1, 0))
        if len(rows) > 3 and len(columns) > 3:
            cropped = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            found.append(normalize((cropped / 255).astype(np.float32)))
    return np.stack(found)


def picture(paint: Callable[[ImageDraw.ImageDraw], None], rng: np.random.Generator) -> NDArray[np.float32]:
    image = Image.new("L", (200, 200), 225)
    paint(ImageDraw.Draw(image))
    pixels = np.asarray(image.rotate(rng.uniform(-8, 8), fillcolor=225)) + rng.normal(0, 3, (200, 200))
    return np.asarray(pixels.clip(0, 255)[..., None], dtype=np.float32)


def scribble(_: int, rng: np.random.Generator) -> NDArray[np.float32]:
    number = int(rng.integers(4, 14))
    curve = CubicSpline(np.arange(number), rng.uniform(35, 165, (number, 2)))
    points = [(float(x), float(y)) for x, y in curve(np.linspace(0, number - 1, 200)).clip(15, 185)]
    width = int(rng.integers(4, 12))
    return picture(lambda draw: draw.line(points, fill=40, width=width, joint="curve"), rng)


def form(number: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a tick, a cross, a smiling face, a triangle, a plus, a star, an arrow, or a crossed box."""
    width, box = int(rng.integers(4, 12)), (45, 45, 155, 155)
    lines = {
        0: [[(50, 100), (85, 145), (155, 50)]],
        1: [[(50, 50), (150, 150)], [(150, 50), (50, 150)]],
        3: [[(100, 45), (155, 150), (45, 150), (100, 45)]],
        4: [[(100, 40), (100, 160)], [(40, 100), (160, 100)]],
        6: [[(40, 100), (160, 100)], [(120, 60), (160, 100), (120, 140)]],
        7: [[(45, 45), (155, 45), (155, 155), (45, 155), (45, 45), (155, 155)]],
    }

    def paint(draw: ImageDraw.ImageDraw) -> None:
        for line in lines.get(number % FORMS, []):
            draw.line(line, fill=40, width=width)
        if number % FORMS == 2:
            draw.ellipse(box, outline=40, width=width)
            draw.ellipse((75, 80, 85, 90), fill=40)
            draw.ellipse((115, 80, 125, 90), fill=40)
            draw.arc((70, 80, 130, 135), 20, 160, fill=40, width=width)
        if number % FORMS == 5:
            angles, radii = np.linspace(0, 2 * np.pi, 11)[:-1], [24, 60] * 5
            star = [(100 + r * np.sin(a), 100 - r * np.cos(a)) for a, r in zip(angles, radii, strict=True)]
            draw.polygon(star, outline=40, width=width)

    return picture(paint, rng)


def texture(_: int, rng: np.random.Generator) -> NDArray[np.float32]:
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (200, 200)), rng.uniform(0.5, 12))
    return np.asarray((200 + noise * rng.uniform(5, 300)).clip(0, 255)[..., None], dtype=np.float32)


def train(pixels: Image28, labels: NDArray[np.int64]) -> NoveltyNetwork:
    """Return the network, trained on images (N, 28, 28) of 11 classes."""
    torch.manual_seed(0)
    network, augmentation = NoveltyNetwork(), Augmentation(28, rotation=15, shift=2, scaling=0.12, shear=0.25)
    images, classes = torch.from_numpy(pixels)[:, None], torch.from_numpy(labels)
    steps = EPOCHS * len(images) // BATCH_SIZE
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.001)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in trange(steps, desc="training", mininterval=10):
        batch = torch.randint(len(images), (BATCH_SIZE,))
        logits = network(augmentation(images[batch]))
        optimizer.zero_grad()
        loss: Tensor = cross_entropy(logits, classes[batch], label_smoothing=LABEL_SMOOTHING)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return network.eval()


def report(name: str, pictures: list[NDArray[np.float32]], network: NoveltyNetwork) -> None:
    """Print how many pictures are said to be no digit, by the network or by their preparation."""
    found: list[Image28] = []
    for pixels in pictures:
        try:
            found.append(as_mnist(pixels))
        except ValueError:
            continue
    refused = len(pictures) - len(found)
    novel = int((network.novelty(torch.from_numpy(np.array(found))[:, None]) >= MAX_NOVELTY).sum()) if found else 0
    print(f"{name:40} {(refused + novel) / len(pictures):6.1%} of {len(pictures):,}: {refused} refused, {novel} novel")


def train_and_save(digits: Image28, labels: NDArray[np.int64]) -> None:
    """Train the network on digits (N, 28, 28) and drawings, and write it into the package."""
    kinds = [*digit_drawings(digits, labels), blotches, blotches, *[strokes] * 6, *[letter] * 5]
    others = drawings(NUMBER, kinds, np.random.default_rng(0))
    targets = np.concatenate([labels, labels, np.full(len(others), len(MNIST.classes))])
    network = train(np.concatenate([digits, digits, others]), targets)
    # In half precision, which is enough to decide.
    arrays = {name: value.numpy() for name, value in network.half().state_dict().items()}
    np.savez_compressed(WEIGHTS, **arrays)


def main(arguments: list[str]) -> None:
    """Train the network if asked to, and evaluate it."""
    with TemporaryDirectory() as name:
        MNIST.fetch(name)
        images, labels = MNIST.read(name, train=True)
    rest, val = split(labels, 5_000, 0)
    if arguments[:1] == ["--train"]:
        train_and_save(images[rest, 0].numpy(), labels[rest].numpy())
        arguments = arguments[1:]
    network, rng = NoveltyNetwork.load(), np.random.default_rng(1)
    novel = (network.novelty(images[val]) >= MAX_NOVELTY).float().mean()
    print(f"{'validation images of MNIST':40} {float(novel):6.1%} of {len(val):,}")
    for kind in (scribble, form, texture):
        report(f"{kind.__name__}s", [kind(k, rng) for k in range(320)], network)
    for folder in arguments:
        files = list(find_images([folder], print, Counter()))
        report(folder, [open_image(file) for file in files], network)


if __name__ == "__main__":
    main(sys.argv[1:])
