"""The pictures in the folder of a run."""

import sys
from io import BytesIO

import numpy as np
import pytest
from conftest import RUN, SHORT, Command
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lit.runs.folders import PICTURES
from mnist_lit.training.plots import draw_curves


def test_a_finished_run_has_the_pictures_of_its_test_that_tensorboard_has(trained: Command) -> None:
    assert trained is not None  # copies the run into the current folder
    events = EventAccumulator(str(RUN.folder), size_guidance={"images": 0}).Reload()
    for name in ("confusion", "mistakes"):
        [logged] = events.Images(f"test/{name}")
        expected = Image.open(BytesIO(logged.encoded_image_string))
        with Image.open(RUN.folder / f"{name}.png") as saved:
            assert np.array_equal(np.asarray(saved), np.asarray(expected))
    with Image.open(RUN.folder / "curves.png") as curves:
        assert curves.size == (1500, 600)


def test_curves_are_those_of_tensorboard(trained: Command) -> None:
    assert trained is not None
    events = EventAccumulator(str(RUN.folder), size_guidance={"scalars": 0}).Reload()
    figure = draw_curves(RUN.folder)
    assert figure
    loss, accuracy = figure.axes
    drawn = {axes.get_title(): {str(line.get_label()): line for line in axes.lines} for axes in (loss, accuracy)}
    assert {title: [*lines] for title, lines in drawn.items()} == {
        "loss": ["training, by step", "training", "validation"],
        "accuracy": ["training", "validation"],
    }
    for title, label, tag in [
        ("loss", "training, by step", "train/loss_by_step"),
        ("loss", "validation", "val/loss"),
        ("accuracy", "training", "train/accuracy"),
    ]:
        expected = [[event.step, event.value] for event in events.Scalars(tag)]
        assert np.asarray(drawn[title][label].get_xydata()).tolist() == expected
    assert drawn["loss"]["training"].get_color() != drawn["loss"]["validation"].get_color()


def test_a_run_that_is_trained_longer_has_the_curves_of_all_epochs(trained: Command) -> None:
    before = (RUN.folder / "curves.png").read_bytes()
    RUN.clear()
    assert not any((RUN.folder / name).exists() for name in PICTURES)
    assert trained("fit", "--ckpt_path=last", "--trainer.max_epochs=3")[0] == 0
    assert all((RUN.folder / name).exists() for name in PICTURES)
    assert (RUN.folder / "curves.png").read_bytes() != before
    figure = draw_curves(RUN.folder)
    assert figure
    assert [len(np.asarray(line.get_xydata())) for line in figure.axes[1].lines] == [3, 3]


def test_where_pictures_cannot_be_drawn_a_line_says_so_and_the_results_are_written(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = command.succeed("fit", *SHORT, "--trainer.max_epochs=1")
    assert "curves and pictures could not be drawn: " in out
    assert "test" in RUN.results()
