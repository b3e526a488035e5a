"""Lightning's own aids do here what they do elsewhere: by flag or config, without a word of code."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RUN, SHORT, TRAIN, Command, callback, stock_trainer

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.runs.folders import Run


def test_early_stopping_ends_a_run_that_no_longer_gets_better(command: Command) -> None:
    stop = callback("EarlyStopping", monitor="val/accuracy", mode="max", patience=2, min_delta=1.0)
    code, out, err = command("fit", *SHORT, "--trainer.max_epochs=50", stop)
    assert (code, err) == (0, "")
    assert RUN.results()["fit"]["epochs"] == 3, "the first epoch counts, two were not better by one"
    assert "test accuracy" in out


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("LearningRateFinder", {}), ("BatchSizeFinder", {}), ("StochasticWeightAveraging", {"swa_lrs": 0.01})],
)
def test_a_callback_that_would_give_a_wrong_run_is_refused_with_its_reason(
    command: Command, name: str, arguments: dict[str, object]
) -> None:
    code, _, err = command("fit", *SHORT, callback(name, **arguments))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: --trainer.callbacks: {name} cannot be used: ")
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", [pytest.param("WeightAveraging", marks=pytest.mark.slow), "EMAWeightAveraging"])
def test_averaged_weights_are_saved_with_the_temperature_that_was_fitted_to_them(command: Command, name: str) -> None:
    assert command("fit", *SHORT, callback(name))[0] == 0
    averaged = DigitClassifier.load_from_checkpoint(RUN.checkpoints / "last.ckpt")
    saved = float(averaged.temperature)
    stock = stock_trainer(Path(), limit_val_batches=5)
    stock.validate(averaged, MNISTDataModule(), verbose=False)
    assert float(averaged.temperature) == saved != 1


def test_a_timer_of_ones_own_ends_the_run(command: Command) -> None:
    code, _, err = command("fit", *SHORT, callback("Timer", duration={"seconds": 0}))
    assert (code, err) == (0, "")
    assert RUN.results()["fit"]["epochs"] == 0


@pytest.mark.usefixtures("command")
def test_the_debug_config_learns_one_batch_by_heart_with_every_aid_on() -> None:
    config = TRAIN.parent / "configs/debug.yaml"
    ended = subprocess.run([sys.executable, TRAIN, "fit", f"--config={config}"], capture_output=True, check=True)
    lines = ended.stdout.decode().splitlines()
    last = next(line for line in lines if line.startswith("epoch 29/30"))
    assert last.endswith("train/accuracy 1.0000")
    assert b"FIT Profiler Report" in ended.stderr
    assert Run(Path("runs/debug/version_0")).results()["fit"]["epochs"] == 30


@pytest.mark.parametrize("flags", [[], ["--data.val_size=0"], ["--trainer.logger=CSVLogger"]])
def test_a_trial_of_a_few_batches_of_everything_leaves_nothing(command: Command, flags: list[str]) -> None:
    code, out, err = command("fit", "--trainer.fast_dev_run=3", *flags)
    assert (code, err) == (0, "")
    assert "epoch  1/1" in out
    assert ("val/accuracy" in out) == ("--data.val_size=0" not in flags)
    assert "errors in 300\n" in out
    assert out.endswith("a trial run of 3 batches of training, validation and test: nothing is recorded\n")
    assert "next" not in out
    assert sorted(path.name for path in Path().iterdir()) == ["data"]


def test_a_trial_touches_no_run(command: Command) -> None:
    assert command("fit", *SHORT)[0] == 0
    (RUN.folder / "results.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in RUN.folder.rglob("*")}
    code, _, err = command("fit", "--ckpt_path=last", "--trainer.fast_dev_run=3")
    assert code == 2
    assert err.startswith("error: --trainer.fast_dev_run cannot change when a run is resumed")
    assert {path: path.stat().st_mtime_ns for path in RUN.folder.rglob("*")} == before
