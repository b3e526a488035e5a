"""`predict` classifies the test images, or photographs, and reports calibrated probabilities."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RUN, Command, read_rows
from PIL import Image

from mnist_lit import DigitClassifier
from mnist_lit.commands import has_room
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.runs.checkpoints import Checkpoint


def test_predict_writes_a_row_for_each_test_image_in_order(trained: Command, data_dir: Path) -> None:
    out = trained.succeed("predict")
    assert str(RUN.folder / "predictions.csv") in out
    table = read_rows(RUN.folder / "predictions.csv")
    assert list(table[0]) == ["image", "digit", "probability", *(f"p{digit}" for digit in range(10))]
    assert [row["image"] for row in table] == [str(n) for n in range(10_000)]
    _, labels = MNIST.read(data_dir, train=False)
    correct = sum(int(row["digit"]) == label for row, label in zip(table, labels.tolist(), strict=True))
    assert correct == RUN.results()["test"]["correct"]
    assert all(row["probability"] == row[f"p{row['digit']}"] for row in table)
    found = np.array([[float(row[f"p{digit}"]) for digit in range(10)] for row in table])
    classifier = DigitClassifier.load_from_checkpoint(RUN.checkpoints / "best.ckpt", weights_only=True).eval()
    assert classifier.temperature != 1
    with torch.inference_mode():
        logits = classifier(MNIST.read(data_dir, train=False)[0])
    expected = (logits / classifier.temperature).softmax(dim=1).numpy()
    assert abs(found - expected).max() < 1e-5, "calibrated"
    assert (found.argmax(axis=1) == logits.numpy().argmax(axis=1)).all()


def test_probabilities_that_are_not_numbers_are_refused(trained: Command) -> None:
    content = Checkpoint.read(RUN.checkpoints / "best.ckpt").content
    content["state_dict"]["network.fc.weight"].fill_(3e38)
    torch.save(content, "mine.ckpt")
    code, _, err = trained("predict", "--ckpt_path=mine.ckpt")
    assert (code, err) == (1, "error: mine.ckpt gives probabilities that are not finite numbers\n")
    assert not Path("predictions.csv").exists()


def test_an_output_is_never_written_over_an_input(trained: Command) -> None:
    Image.new("L", (30, 30)).save("photo.png")
    for name in ("photo", "PHOTO.PNG"):
        Path(name).write_bytes(before := Path("photo.png").read_bytes())
    Path("mine.yaml").write_text("images: [photo]\n", encoding="utf-8")
    best = RUN.checkpoints / "best.ckpt"
    for output in ("photo.png", "PHOTO.PNG", "photo", str(best), "./photo", "mine.yaml"):
        code, _, err = trained("predict", "--config=mine.yaml", "--output", output)
        assert (code, err) == (2, f"error: --output: {Path(output)} is an input: give the name of another file\n")
    assert Path("photo.png").read_bytes() == Path("photo").read_bytes() == before
    assert Checkpoint.read(best)


def test_a_home_folder_is_expanded_in_every_path(trained: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERPROFILE" if sys.platform == "win32" else "HOME", str(Path("home").absolute()))
    Path("config.yaml").write_text("output: ~/of_a_config.csv\n", encoding="utf-8")
    few = "--trainer.limit_predict_batches=1"
    assert trained("predict", few, "--output=~/of_a_flag.csv")[0] == 0
    assert trained("predict", few, "--config=config.yaml")[0] == 0
    assert sorted(path.name for path in Path("home").iterdir()) == ["of_a_config.csv", "of_a_flag.csv"]


def checkpoint_of(dataset: str) -> None:
    """Write a checkpoint as if the digits that it was trained on were images of another data set."""
    content = Checkpoint.read(RUN.checkpoints / "best.ckpt").content
    content["datamodule_hyper_parameters"]["dataset"] = dataset
    torch.save(content, "mine.ckpt")


@pytest.mark.usefixtures("trained")
def test_photographs_are_cropped_to_a_square_and_classified(trained: Command) -> None:
    checkpoint_of("CIFAR10")
    Path("mine").mkdir()
    for number in range(3):
        Image.new("RGB", (90, 60), (80 * number, 0, 0)).save(f"mine/{number}.png")
    Path("mine/a.png").write_bytes(b"hello")
    code, out, err = trained("predict", "--images", "mine", "--ckpt_path=mine.ckpt", "--save_seen=seen")
    message = "error: mine/a.png: not a supported image: save it as JPEG or PNG"
    assert (code, err.splitlines()) == (1, [message, "error: 1 of 4 pictures could not be read: see the errors above"])
    table = read_rows(Path("predictions.csv"))
    assert [row["image"] for row in table] == [f"mine/{number}.png" for number in range(3)]
    for row in table:
        probability = float(row["probability"])
        shown = f"{probability:.1%}" if probability < 0.9995 else "over 99.9%"
        assert f"{row['image']}: {row['digit']}, {shown}" in out
    with Image.open("seen/00002_2.png") as image:
        assert (image.size, image.mode) == ((28, 28), "L")


@pytest.mark.usefixtures("trained")
def test_pictures_of_other_drawings_are_refused(trained: Command) -> None:
    checkpoint_of("KMNIST")
    code, _, err = trained("predict", "--images", "a.png", "--ckpt_path=mine.ckpt")
    message = "the checkpoint classifies KMNIST: only digits and photographs can be read from pictures"
    assert (code, err) == (2, f"error: {message}\n")


def test_flags_of_pictures_need_pictures(trained: Command) -> None:
    assert trained("predict", "--save_seen=seen")[::2] == (2, "error: --save_seen: give pictures with --images\n")
    assert trained("predict", "--several")[::2] == (2, "error: --several: give pictures with --images\n")


@pytest.mark.skipif(has_room("reader"), reason="the reader is there, and has tests of its own")
def test_without_the_reader_one_line_says_so(trained: Command) -> None:
    for flags in ([], ["--several"]):
        err = trained.refuse("predict", "--images", "a.png", *flags)
        assert err.endswith("requires mnist_lit/reader, which is not there\n")
