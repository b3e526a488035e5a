"""Pictures of digits are read as MNIST's digits, one or many in each, and what is doubtful is marked."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RUN, TRAIN, Command, posix, read_rows
from PIL import Image, ImageDraw
from reader.helpers.sheets import photographed, sheet, written

from mnist_lit.datasets.catalog import MNIST
from mnist_lit.reader.normalize import IMAGE_SIZE
from mnist_lit.reader.novelty import MAX_NOVELTY, NoveltyNetwork
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.system.errors import printable

BOX = ("left", "top", "width", "height")
ORIENTATION = 0x0112


@pytest.fixture
def pictures(data_dir: Path, tmp_path: Path) -> Path:
    """A folder with ten pictures of test digits, `<number>_<label>.png`."""
    pixels, labels = MNIST.read(data_dir, train=False)
    (folder := tmp_path / "mine").mkdir()
    for number in range(10):
        image = Image.fromarray(255 - pixels[number, 0].numpy()).resize((140, 140), Image.Resampling.BICUBIC)
        image.save(folder / f"{number}_{labels[number]}.png")
    return folder


def test_pictures_are_classified_in_the_order_given_with_their_exact_names(trained: Command, pictures: Path) -> None:
    names = ["mine/9_9.png", "./mine/0_7.png", "mine", "mine/../mine/3_0.png"]
    odd = ["null", "1e3", "[a, b]", *(['a "b",\nc', "bad\udcff"] if sys.platform == "linux" else [])]
    for name in odd:
        os.link(pictures / "1_2.png", pictures / name)
        names.append(f"mine/{name}")
    out = trained.succeed("predict", "--images", *names)
    expected = [*names[:2], *sorted(str(Path("mine") / path.name) for path in pictures.glob("*.png")), *names[3:]]
    found = read_rows(RUN.folder / "predictions.csv")
    assert [row["image"] for row in found] == expected
    _, unread, *lines = out.splitlines()[:-1]
    assert unread == f"{len(odd)} files without a suffix are not read", "of the folder"
    assert [line.partition(": ")[0] for line in lines] == [printable(name) for name in expected]
    for line, row in zip(lines, found, strict=True):
        probability = float(row["probability"])
        assert f": {row['digit']}, {f'{probability:.1%}' if probability < 0.9995 else 'over 99.9%'}" in line
        assert ("unsure" in line) == (probability < 0.4)
    digits = [row["digit"] for row in found[2:12]]
    assert np.mean([digit == name[-5] for digit, name in zip(digits, expected[2:12], strict=True)]) >= 0.6


@posix
def test_unreadable_pictures_are_reported_and_the_others_classified(trained: Command, pictures: Path) -> None:
    (pictures / "a.png").touch()
    (pictures / "b.png").write_bytes(b"hello")
    os.mkfifo(pictures / "c.png")
    Image.new("L", (50, 50), 200).save(pictures / "d.png")
    both = [Image.open(pictures / name) for name in ("1_2.png", "7_9.png")]
    (wide := Image.new("L", (280, 140))).paste(both[0])
    wide.paste(both[1], (140, 0))
    wide.save(pictures / "e.png")
    code, _, err = trained("predict", "--images", "mine", "missing.png", "--output=x.csv")
    assert code == 1
    assert err.splitlines() == [
        "error: mine/a.png: an empty file",
        "error: mine/b.png: not a supported image: save it as JPEG or PNG",
        "error: mine/c.png: not a file",
        "error: mine/d.png: no digit in it: it looks blank",
        "error: mine/e.png: more than one digit in it: crop it to one, or give --several",
        "error: missing.png: No such file or directory",
        "error: 6 of 16 pictures could not be read: see the errors above",
    ]
    assert [row["image"] for row in read_rows(Path("x.csv"))] == sorted(
        f"mine/{n}_{d}.png" for n, d in enumerate("7210414959")
    )


def test_no_csv_file_without_a_readable_picture(trained: Command) -> None:
    code, _, err = trained("predict", "--images", "none.png")
    assert (code, err.splitlines()[-1]) == (1, "error: 1 of 1 pictures could not be read: see the errors above")
    assert not (RUN.folder / "predictions.csv").exists()


def test_save_seen_saves_the_preprocessed_pictures(trained: Command, pictures: Path, data_dir: Path) -> None:
    assert trained("predict", "--images", pictures, "--save_seen=seen")[0] == 0
    seen = sorted(Path("seen").iterdir())
    assert [path.name for path in seen[:2]] == ["00000_0_7.png", "00001_1_2.png"]
    pixels, _ = MNIST.read(data_dir, train=False)
    for path, digit in zip(seen, pixels[:10, 0].numpy(), strict=True):
        with Image.open(path) as image:
            assert image.size == (IMAGE_SIZE, IMAGE_SIZE)
            assert np.corrcoef(np.asarray(image).sum(axis=0), digit.sum(axis=0))[0, 1] > 0.8


def test_csv_file_is_written_even_if_preprocessed_pictures_cannot_be_saved(trained: Command, pictures: Path) -> None:
    Path("seen").touch()
    trained.refuse("predict", "--images", pictures, "--save_seen=seen", code=1)
    assert len(read_rows(RUN.folder / "predictions.csv")) == 10


@pytest.fixture
def numbers(data_dir: Path, tmp_path: Path) -> list[str]:
    """Two photographs: of 7 2 1 0 and 4 1 4 9 in two lines on ruled paper, and of 5 9; the digits are test images."""
    pixels, _ = MNIST.read(data_dir, train=False)
    digits, rng = pixels[:10, 0].numpy(), np.random.default_rng(0)
    for name, lines in (("two.png", [digits[:4], digits[4:8]]), ("one.jpg", [digits[8:]])):
        ink, _ = written([list(line) for line in lines], rng)
        picture = photographed(ink, sheet(ink.shape, "ruled", 90), rng, degrees=1)[..., 0]
        Image.fromarray(picture.astype(np.uint8)).resize((2 * ink.shape[1], 2 * ink.shape[0])).save(tmp_path / name)
    return ["two.png", "one.jpg"]


def seen(number: int, row: dict[str, str]) -> torch.Tensor:
    """Return a digit that was saved, (1, 28, 28)."""
    with Image.open(f"seen/{row['digit']}/{number:05}_{Path(row['image']).stem}.png") as image:
        return torch.from_numpy(np.array(image))[None]


def test_several_digits_are_read_in_lines(trained: Command, numbers: list[str], data_dir: Path) -> None:
    out = trained.succeed("predict", "--several", "--images", *numbers, "--save_seen=seen")
    found = read_rows(RUN.folder / "predictions.csv")
    assert list(found[0]) == ["image", "digit", "probability", *(f"p{d}" for d in range(10)), *BOX]
    assert [row["image"] for row in found] == ["two.png"] * 8 + ["one.jpg"] * 2
    novel = NoveltyNetwork.load().novelty(torch.stack([seen(number, row) for number, row in enumerate(found)]))
    unsure = [
        float(row["probability"]) < 0.4 or bool(strange >= MAX_NOVELTY)
        for row, strange in zip(found, novel, strict=True)
    ]
    answers = [row["digit"] + "?" * mark for row, mark in zip(found, unsure, strict=True)]
    lines = [" ".join(answers[part]) for part in (slice(4), slice(4, 8), slice(8, 10))]
    assert out.splitlines()[1:5] == [
        f"two.png: {lines[0]}",
        f"         {lines[1]}",
        f"one.jpg: {lines[2]}",
        "10 digits" + (f", {sum(unsure)} of them unsure (?)" if any(unsure) else ""),
    ]
    pixels, labels = MNIST.read(data_dir, train=False)
    assert sum(int(row["digit"]) == label for row, label in zip(found, labels[:10].tolist(), strict=True)) >= 7
    for number, (row, digit) in enumerate(zip(found, pixels[:10, 0].numpy(), strict=True)):
        assert np.corrcoef(seen(number, row)[0].numpy().sum(axis=0), digit.sum(axis=0))[0, 1] > 0.8
    for name, number in (("two", 0), ("one", 8)):
        with Image.open(f"seen/{number:05}_{name}_read.png") as image:
            assert image.size == (2 * 90 * (6 if name == "two" else 4), 2 * 90 * (4 if name == "two" else 3))
            assert image.mode == "RGB"


def test_what_is_no_digit_is_doubted(trained: Command, tmp_path: Path) -> None:
    picture = Image.new("L", (200, 200), 225)
    ImageDraw.Draw(picture).line(
        [(30, 100), (170, 100), (130, 60), (170, 100), (130, 140)], fill=30, width=9
    )  # an arrow
    picture.save(tmp_path / "arrow.png")
    assert trained("predict", "--images", "arrow.png")[1].splitlines()[1].endswith(" (perhaps no digit)")
    out = trained("predict", "--images", "arrow.png", "--several")[1].splitlines()
    assert out[1].startswith("arrow.png: ")
    assert out[1].endswith("?")


def test_boxes_of_several_digits_are_in_pixels_of_the_file(trained: Command, tmp_path: Path) -> None:
    """The file is reduced when it is opened, and rotated by its EXIF orientation."""
    picture = Image.new("L", (8_000, 3_000), 230)
    ImageDraw.Draw(picture).rectangle((1_000, 500, 1_199, 2_499), fill=20)
    ImageDraw.Draw(picture).ellipse((5_000, 1_000, 5_999, 2_499), outline=20, width=200)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned to the right
    picture.rotate(90, expand=True).save(tmp_path / "a.png", exif=exif)
    trained.succeed("predict", "--several", "--images", "a.png", "--output=a.csv")
    boxes = [[int(row[side]) for side in BOX] for row in read_rows(Path("a.csv"))]
    assert np.allclose(boxes, [[1_000, 500, 200, 2_000], [5_000, 1_000, 1_000, 1_500]], atol=12)


def test_pictures_without_digits_are_reported_beside_those_with_several(trained: Command, numbers: list[str]) -> None:
    Image.new("L", (50, 50), 200).save("blanarrow.png")
    code, out, err = trained("predict", "--several", "--images", "blanarrow.png", numbers[1])
    assert code == 1
    assert err.splitlines() == [
        "error: blanarrow.png: no digit in it: it looks blank",
        "error: 1 of 2 pictures could not be read: see the errors above",
    ]
    assert out.splitlines()[1].startswith("one.jpg: ")


def test_several_is_for_pictures_of_digits(trained: Command) -> None:
    content = Checkpoint.read(RUN.checkpoints / "best.ckpt").content
    content["datamodule_hyper_parameters"]["dataset"] = "CIFAR10"
    torch.save(content, "cifar.ckpt")
    code, _, err = trained("predict", "--several", "--images", "a.png", "--ckpt_path=cifar.ckpt")
    kind = "10 classes of images (1, 28, 28)"
    assert err == f"error: --several: the checkpoint classifies CIFAR10, {kind}, not ten digits of (1, 28, 28)\n"
    assert code == 2


def test_digits_of_sheets_are_saved_in_a_new_folder(trained: Command, numbers: list[str]) -> None:
    """A digit that is read otherwise would leave its old answer in a data set."""
    Path("seen").mkdir()
    assert trained("predict", "--several", "--images", *numbers, "--save_seen=seen")[0] == 0
    code, _, err = trained("predict", "--several", "--images", *numbers, "--save_seen=seen")
    assert (code, err) == (2, "error: --save_seen: seen is not empty: its digits would be mixed with these\n")


def test_sheets_that_were_not_classified_are_not_reported(trained: Command, numbers: list[str]) -> None:
    limits = ("--trainer.limit_predict_batches=1", "--data.batch_size=4")
    out = trained.succeed("predict", "--several", "--images", *numbers, "--save_seen=seen", *limits)
    assert out.splitlines()[2].startswith("4 digits")
    assert "one.jpg" not in out
    assert len(list(Path("seen").glob("*_read.png"))) == 1


@posix
@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_terminal_shows_the_preprocessed_picture(pictures: Path, tmp_path: Path) -> None:
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    process = subprocess.Popen([sys.executable, TRAIN, "predict", "--images", pictures / "0_7.png"], stdout=theirs)
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 65_536):
            output += chunk
    except OSError:  # Linux, when the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    drawing = [line for line in output.decode().splitlines() if line and 0x2800 <= ord(line[0]) < 0x2900]
    assert len(drawing) == IMAGE_SIZE // 4
    assert drawing[3][IMAGE_SIZE // 2 :].startswith(f"  {tmp_path}/mine/0_7.png: ")


def test_uncalibrated_probabilities_are_reported(trained: Command, pictures: Path) -> None:
    """The threshold is lower, since label smoothing alone makes a network less confident."""
    content = Checkpoint.read(RUN.checkpoints / "best.ckpt").content
    content["state_dict"]["temperature"] = torch.ones(())
    torch.save(content, "raw.ckpt")
    out = trained.succeed("predict", "--images", pictures, "--ckpt_path=raw.ckpt", "--output=raw.csv")
    assert out.splitlines()[1].endswith("the probabilities are not calibrated")
    for line, row in zip(out.splitlines()[2:-1], read_rows(Path("raw.csv")), strict=True):
        assert ("unsure" in line) == (float(row["probability"]) < 0.4)
