"""The line that is printed per epoch."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SHORT, Command, stock_trainer
from lightning.pytorch import Callback
from torch import Tensor

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.datasets.sampling import Batch
from mnist_lit.training.callbacks import TrainingTimer
from mnist_lit.training.progress import EpochLines

METRICS = ["train/loss", "train/accuracy", "val/loss", "val/accuracy"]
Fit = Callable[..., str]


@pytest.fixture
def fit(data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fit:
    """Train two epochs with a callback, and return the output."""

    def fit(callback: Callback, kind: type[DigitClassifier] = DigitClassifier, **arguments: Any) -> str:
        settings = {"max_epochs": 2, "limit_train_batches": 20, "limit_val_batches": 5, "callbacks": [callback]}
        trainer = stock_trainer(tmp_path, enable_checkpointing=False, enable_progress_bar=True, **settings | arguments)
        trainer.fit(kind(channels=[4]), MNISTDataModule(data_dir=str(data_dir)))
        return "".join(capsys.readouterr())

    return fit


def test_epoch_line_has_the_time_and_every_metric_that_is_logged(fit: Fit) -> None:
    class MoreMetrics(DigitClassifier):
        def training_step(self, batch: Batch) -> Tensor:
            self.log("train/extra", self.current_epoch + 0.5, on_step=False, on_epoch=True)
            return super().training_step(batch)

        def on_validation_epoch_end(self) -> None:
            super().on_validation_epoch_end()
            self.log("val/f1", self.current_epoch + 0.25)

    output = fit(EpochLines(TrainingTimer(verbose=False)), MoreMetrics)
    for epoch, line in enumerate(re.findall(r"epoch  \d/2 +\d+\.\d s  (.*)", output)):
        values = dict(metric.split(" ") for metric in line.split("  "))
        assert values.keys() == {*METRICS, "train/extra", "val/f1"}
        assert (values["train/extra"], values["val/f1"]) == (f"{epoch}.5000", f"{epoch}.2500")
    assert epoch == 1


def test_epoch_line_has_no_validation_metrics_without_a_validation(fit: Fit) -> None:
    output = fit(EpochLines(TrainingTimer(verbose=False)), max_epochs=-1, max_steps=70, check_val_every_n_epoch=2)
    first, second, third = re.findall(r"epoch  \d   .*", output)
    assert "val/" in second
    assert "val/" not in first + third
    assert "epoch  4" not in output.replace("epoch  4:", ""), "a limit has cut it"


def test_time_left_of_the_run_is_in_the_lines(command: Command) -> None:
    out = command.succeed("fit", *SHORT)
    first, last = re.findall(r"^epoch .*", out, re.MULTILINE)
    assert re.search(r"train/accuracy 0\.\d+ .*val/accuracy \S+  \d\d:\d\d left$", first), (
        "validation resets no training metric"
    )
    assert "left" not in last
    _, out, err = command("fit", *SHORT, "--trainer.enable_progress_bar=true")
    assert re.search(r"Epoch 1: .*20/20 .*, val/accuracy=0\.\d+", out + err), "Lightning's own bar"
