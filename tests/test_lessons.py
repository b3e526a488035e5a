"""The lessons ask for commands whose answers were measured, and their scripts run."""

import re
import runpy
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
from conftest import TRAIN, link_data

LESSONS = TRAIN.parent / "docs" / "lessons"


def test_the_commands_are_those_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TRAIN.parent / "tests" / "benchmarks")
    lessons = import_module("lessons")
    text = LESSONS.with_suffix(".md").read_text(encoding="utf-8")
    asked = re.findall(r"```sh\npython (?:train.py|docs/lessons/)(.+)\n```", text.replace("train.py ", "train.py"))
    assert len(asked) == text.count("\n## ") == len(lessons.LESSONS)
    found = import_module("measure").load("lessons")["lessons"]
    for command, (name, measured) in zip(asked, lessons.LESSONS.items(), strict=True):
        (row,) = (row for row, other in measured.items() if other == command)
        assert max(found[name][row]["seconds"]) < 60
    assert {name: [*rows] for name, rows in found.items()} == {n: [*rows] for n, rows in lessons.LESSONS.items()}


@pytest.fixture
def measure(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Callable[..., Any]]:
    """Return what a script measures, with few steps."""
    link_data(data_dir, tmp_path)
    monkeypatch.chdir(tmp_path)
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    few = partial(lightning.pytorch.Trainer, limit_train_batches=100, **quiet)
    monkeypatch.setattr(lightning.pytorch, "Trainer", few)
    return lambda name: runpy.run_path(str(LESSONS / f"{name}.py"))["measure"]


@pytest.mark.slow
def test_other_scales_of_the_pixels_lower_the_accuracy(measure: Callable[[str], Callable[..., Any]]) -> None:
    accuracy = measure("pixels")(seed=777)
    assert accuracy["0 to 1, as in training"] == max(accuracy.values()) > 0.9
    assert accuracy["inverted: black on white"] < 0.7


@pytest.mark.slow
def test_labels_are_wrong_in_training_only(measure: Callable[[str], Callable[..., Any]]) -> None:
    accuracy = measure("label_noise")(0.5, seed=777)
    assert accuracy["train/accuracy"] < 0.55
    assert accuracy["val/accuracy"] > 0.8
