"""A person sees how far a run is, and how well it goes."""

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import SHORT, Command, stock_trainer

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.training.progress import EpochLines, ProgressBar

STAGES, METRICS = ("train", "val"), ("loss", "accuracy")


def fit(data_dir: Path, tmp_path: Path, callback: EpochLines | ProgressBar, **arguments: Any) -> None:
    limits = {"max_epochs": 2} | arguments
    stock_trainer(
        tmp_path,
        **limits,
        limit_train_batches=20,
        limit_val_batches=5,
        enable_checkpointing=False,
        enable_progress_bar=True,
        callbacks=[callback],
    ).fit(DigitClassifier(channels=[4]), MNISTDataModule(data_dir=str(data_dir)))


def test_an_epoch_is_one_line_with_time_loss_and_accuracy(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(data_dir, tmp_path, EpochLines())
    parts = [r"epoch  (\d)/2 +\d+\.\d s", *(rf"{stage}/{name} \d\.\d{{4}}" for stage in STAGES for name in METRICS)]
    assert re.findall("  ".join(parts), capsys.readouterr().out) == ["1", "2"]


def test_an_epoch_without_validation_shows_none_and_there_may_be_no_last_epoch(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(data_dir, tmp_path, EpochLines(), max_epochs=-1, max_steps=60, check_val_every_n_epoch=2)
    first, second, third = re.findall(r"epoch  \d   .*", capsys.readouterr().out)
    assert "val/" in second
    assert "val/" not in first + third


def test_the_bar_shows_epochs_from_one_steps_rate_loss_and_validation_accuracy(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(data_dir, tmp_path, ProgressBar())
    captured = capsys.readouterr()
    assert re.search(r"epoch  2/2: .*20/20 .*it/s, loss=\d\.\d+, val/accuracy=0\.\d+\]", captured.out + captured.err)
    assert "v_num" not in captured.out + captured.err


def test_the_bar_opens_where_an_epoch_is_resumed_at_its_very_end(command: Command) -> None:
    """There is no loss yet. `best.ckpt` of a second validation is saved at the end of its epoch."""
    flags = ["--trainer.enable_progress_bar=true", "--trainer.val_check_interval=0.5", "--trainer.max_epochs=1"]
    assert command("fit", *SHORT, *flags)[0] == 0
    code, out, err = command("fit", "--ckpt_path=best", "--trainer.max_epochs=2")
    assert code == 0, err
    assert "epoch  2/2" in out
