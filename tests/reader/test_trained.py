"""The trained network of the package reads digits where there is no run, and is the one that its card describes."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import Command, read_rows
from PIL import Image
from reader.helpers.pages import PAGE, described_in

from mnist_lit.commands.flags import build_parser, parse
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.reader.page.html import write_page
from mnist_lit.reader.page.operations import describe_network
from mnist_lit.reader.trained import CARD, PROGRAM, load_trained


@pytest.fixture
def seven(data_dir: Path, tmp_path: Path) -> Path:
    """The first test image as a picture, black on white."""
    pixels, _ = MNIST.read(data_dir, train=False)
    Image.fromarray(255 - pixels[0, 0].numpy()).resize((140, 140)).save(path := tmp_path / "seven.png")
    return path


@pytest.mark.usefixtures("seven")
def test_without_a_run_pictures_are_read_and_it_says_by_what(command: Command) -> None:
    out = command.succeed("predict", "--images", "seven.png")
    first, answer, _ = out.splitlines()
    assert first == (
        f"no checkpoint in {Path('runs').absolute()}: read as handwritten digits by the network of the package, "
        f"see {CARD}"
    )
    assert answer.startswith("seven.png: 7")
    (row,) = read_rows(Path("predictions.csv"))
    assert list(row) == ["image", "digit", "probability", *(f"p{digit}" for digit in range(10))]
    assert not Path("runs").exists()
    Path("mine.yaml").write_text("images: [seven.png]\noutput: other.csv\n", encoding="utf-8")
    assert command("predict", "--config=mine.yaml")[::2] == (0, "")
    assert Path("other.csv").read_bytes() == Path("predictions.csv").read_bytes()

    code, out, _ = command("predict", "--images", "seven.png", "--several", "--output=boxes.csv", "--save_seen=seen")
    assert (code, "seven.png: 7" in out) == (0, True)
    assert "left" in Path("boxes.csv").read_text(encoding="utf-8")
    assert list(Path("seen/7").glob("*.png"))


@pytest.mark.usefixtures("seven")
def test_what_needs_a_checkpoint_is_refused_without_one(command: Command) -> None:
    none = "there is none in runs: train one with fit"
    for flag in ("--data.batch_size=10", "--trainer.precision=bf16-true", "--model.dropout=0.1"):
        code, _, err = command("predict", "--images", "seven.png", flag)
        assert (code, err) == (2, f"error: {flag.partition('=')[0]} needs a checkpoint, and {none}\n")
    for flag in ("--experiment=mine", "--ckpt_path=best", "--ckpt_path=mine.ckpt"):
        code, _, err = command("predict", "--images", "seven.png", flag)
        assert (code, err[:9]) == (1, "error: no")
    for name in ("predict", "test", "validate", "export"):
        assert command.refuse(name, code=1) == "error: no run with a best checkpoint in runs: train one with fit\n"
    Path("mine.yaml").write_text("images: [seven.png]\n", encoding="utf-8")
    for output in ("seven.png", "mine.yaml"):
        code, _, err = command("predict", "--config=mine.yaml", "--output", output)
        assert (code, err) == (2, f"error: --output: {output} is an input: give the name of another file\n")
    assert not Path("predictions.csv").exists()


def test_it_is_trained_by_the_recipe_best() -> None:
    files = {"metadata.json": ""}
    torch.export.load(PROGRAM, extra_files=files)
    settings = json.loads(json.loads(files["metadata.json"])["settings"])
    recipe = parse(build_parser("fit"), ["--config=best"])
    model = {name: settings["model"][name] for name in vars(recipe.model)}
    assert model | {"betas": tuple(model["betas"])} == vars(recipe.model)
    assert settings["data"] == {name: recipe.data[name] for name in settings["data"]}
    card = CARD.read_text(encoding="utf-8")
    assert f"trainer.max_epochs: {recipe.trainer.max_epochs}\n" in card
    assert f"seed {recipe.seed}:" in card


def test_the_page_of_the_documents_has_this_network_and_the_present_scripts() -> None:
    page = PAGE.read_text(encoding="utf-8")
    model = described_in(page)
    assert write_page(model) == page, "in the folder `tests`, run `python -m reader.helpers.pages`"
    assert model["weights"] == describe_network(torch.export.load(PROGRAM))["weights"]


def test_its_card_states_its_errors(data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=False)
    wrong = (load_trained()(pixels).argmax(dim=1) != labels).sum()
    found = re.search(r": (\d+) errors in 10,000", CARD.read_text(encoding="utf-8"))
    assert found
    assert int(found[1]) == pytest.approx(int(wrong), abs=1), "another processor's rounding may decide one image"
