"""The best and the last checkpoint: which epochs they have, and what is not saved or loaded."""

import math
from pathlib import Path
from typing import Any

import pytest
from helpers.fitting import SetWeight, epoch_and_step, fit, fit_scripted

from mnist_lit import DigitClassifier
from mnist_lit.runs.folders import Run
from mnist_lit.training.callbacks import DivergedError
from mnist_lit.training.checkpointing import DurableCheckpointIO, EpochCheckpoint


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def saved(run: Run) -> dict[str, tuple[int, int]]:
    """Return the epoch, counted from 0, and the step of each checkpoint."""
    return {path.stem: epoch_and_step(path) for path in run.checkpoints.iterdir()}


@pytest.mark.parametrize(
    ("scores", "resumed_after", "best"),
    [
        ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.5)], 0, 2),
        ([(0.5, 2.0), (0.5, 1.0), (0.5, math.nan)], 0, 2),
        ([(0.5, 2.0), (0.5, 1.0), (0.5, 1.5)], 2, 2),
        ([(0.0, 2.0), (0.0, 3.0), (0.0, 1.0)], 2, 3),
        ([(0.5, 1.0), (0.5, 1.0), (0.4, 0.1)], 1, 1),
    ],
)
def test_best_is_the_epoch_of_the_highest_accuracy_then_lowest_loss_also_after_a_resume(
    run: Run, data_dir: Path, scores: list[tuple[float, float]], resumed_after: int, best: int
) -> None:
    if resumed_after:
        fit_scripted(data_dir, run, scores[:resumed_after])
    checkpoint = fit_scripted(data_dir, run, scores, run.last)
    assert (checkpoint.best_epoch, checkpoint.epochs) == (best, 3)
    assert float(checkpoint.best_model_score or 0) == pytest.approx(scores[best - 1][0])
    assert saved(run) == {"best": (best - 1, best), "last": (2, 3)}


def test_best_is_the_last_validated_epoch_if_asked_for(run: Run, data_dir: Path) -> None:
    scores = [(0.9, 0.1), (0.5, 2.0)]
    checkpoint = fit_scripted(data_dir, run, scores, last_epoch=True)
    assert (checkpoint.best_epoch, float(checkpoint.best_model_score or 0)) == (2, 0.5)
    assert saved(run) == {"best": (1, 2), "last": (1, 2)}


@pytest.mark.parametrize(
    ("settings", "best", "last"),
    [
        ({"limit_val_batches": 0}, (1, 40), (1, 40)),
        ({"max_epochs": 3, "limit_train_batches": 2, "check_val_every_n_epoch": 2}, (1, 4), (2, 6)),
    ],
)
def test_best_is_the_last_epoch_without_validation_else_one_that_was_validated(
    run: Run, data_dir: Path, settings: dict[str, Any], best: tuple[int, int], last: tuple[int, int]
) -> None:
    checkpoint = EpochCheckpoint(run, validated="limit_val_batches" not in settings)
    fit(data_dir, run, checkpoint, **settings)
    assert saved(run) == {"best": best, "last": last}
    assert (checkpoint.best_epoch, checkpoint.epochs) == (2, last[0] + 1)
    assert (checkpoint.best_model_score is None) == ("limit_val_batches" in settings)


@pytest.mark.parametrize("name", ["network.fc.weight", "network.layer1.2.running_var"])
def test_weights_and_buffers_that_are_not_finite_are_not_saved(run: Run, data_dir: Path, name: str) -> None:
    checkpoint = EpochCheckpoint(run, validated=False)
    classifier = DigitClassifier(channels=[4], batch_norm=True)
    damage = SetWeight(name, math.nan, step=40)
    with pytest.raises(DivergedError, match=rf"{name} is not finite after step 40"):
        fit(data_dir, run, damage, checkpoint, classifier=classifier, limit_val_batches=0)
    assert saved(run) == {"best": (0, 20), "last": (0, 20)}


def test_a_damaged_checkpoint_is_not_loaded(tmp_path: Path) -> None:
    (path := tmp_path / "other.ckpt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"other.ckpt is not a complete checkpoint"):
        DurableCheckpointIO().load_checkpoint(path)
