"""Lightning's own callbacks and debugging flags work as Lightning documents them."""

import logging
from pathlib import Path

import pytest
from conftest import RUN, SHORT, TRAIN, Command, callback, stock_trainer

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.runs.folders import Run
from mnist_lit.training.evaluation import Calibration, Outputs


def test_early_stopping_ends_a_run_that_does_not_improve(command: Command) -> None:
    stop = callback("EarlyStopping", monitor="val/accuracy", mode="max", patience=2, min_delta=1.0)
    out = command.succeed("fit", *SHORT, "--trainer.max_epochs=50", "--trainer.limit_train_batches=2", stop)
    assert RUN.results()["fit"]["epochs"] == 3, "the first one, and two without an improvement of 1"
    assert "\nEarlyStopping ended it after 3 of 50 epochs: Monitored metric val/accuracy did not improve in" in out
    assert "test accuracy" in out


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("LearningRateFinder", {}), ("BatchSizeFinder", {}), ("StochasticWeightAveraging", {"swa_lrs": 0.01})),
        ("OnExceptionCheckpoint", {"dirpath": "left"}),
        ("ModelPruning", {"pruning_fn": "l1_unstructured"}),
    ],
)
def test_callbacks_that_would_make_a_run_wrong_are_refused_with_the_reason(
    command: Command, name: str, arguments: dict[str, object]
) -> None:
    err = command.refuse("fit", *SHORT, callback(name, **arguments))
    assert err.startswith(f"error: --trainer.callbacks: {name} cannot be used: ")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("monitor", "flags", "problem"),
    [
        ("val/accuracy", [], "watches val/accuracy with mode min: give mode max"),
        ("val/loss", ["--data.val_size=0"], "watches val/loss, and there is no validation"),
        ("val_loss", [], "watches val_loss, which is not logged; choose one of train/accuracy, train/loss, "),
    ],
)
@pytest.mark.parametrize("name", ["EarlyStopping", "ModelCheckpoint"])
def test_a_callback_that_watches_nothing_or_the_wrong_way_is_refused_before_the_first_epoch(
    command: Command, name: str, monitor: str, flags: list[str], problem: str
) -> None:
    code, out, err = command("fit", *SHORT, callback(name, monitor=monitor), *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: --trainer.callbacks: {name} {problem}")
    assert "epoch" not in out
    assert not Path("runs").exists(), "which a later fit --ckpt_path last would take up, only to fail again"


def test_a_checkpoint_of_the_last_steps_is_lightnings_own(command: Command) -> None:
    """Lightning itself supplies `step` and `epoch` to it."""
    last = callback("ModelCheckpoint", monitor="step", mode="max", filename="{step}", every_n_train_steps=10)
    assert command("fit", *SHORT, last)[0] == 0
    assert (RUN.checkpoints / "step=40.ckpt").is_file()


@pytest.mark.parametrize("name", [pytest.param("WeightAveraging", marks=pytest.mark.slow), "EMAWeightAveraging"])
def test_averaged_weights_are_saved_with_their_own_temperature(command: Command, name: str) -> None:
    assert command("fit", *SHORT, callback(name))[0] == 0
    averaged = DigitClassifier.load_from_checkpoint(RUN.checkpoints / "last.ckpt", weights_only=True)
    saved, outputs = float(averaged.temperature), Outputs()
    stock = stock_trainer(Path(), limit_val_batches=5, callbacks=[outputs, Calibration(outputs)])
    stock.validate(averaged, MNISTDataModule(), verbose=False)
    assert float(averaged.temperature) == saved != 1
    fitted = RUN.results()["test"]["accuracy"]
    assert f"test accuracy {fitted:.2%}" in command("test", "--trainer.limit_test_batches=5")[1], "of the same weights"


def test_a_timer_ends_the_run(command: Command) -> None:
    command.succeed("fit", *SHORT, callback("Timer", duration={"seconds": 0}))
    assert RUN.results()["fit"]["epochs"] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Profiler clears events at the end of each cycle")  # torch's, of a user's choice
@pytest.mark.parametrize("profiler", ["pytorch", "advanced", "simple"])
def test_a_profiled_run_is_recorded(command: Command, profiler: str) -> None:
    assert command("fit", *SHORT, f"--trainer.profiler={profiler}")[0] == 0
    assert RUN.results().keys() == {"fit", "test", "made_by"}


def test_the_debug_config_overfits_one_batch_and_profiles(
    command: Command, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)  # to caplog
    out = command.succeed("fit", "--config", TRAIN.parent / "configs/debug.yaml")
    last = next(line for line in out.splitlines() if line.startswith("epoch 29/30"))
    assert "train/accuracy 1.0000" in last
    assert "FIT Profiler Report" in caplog.text
    assert Run(Path("runs/debug/version_0")).results()["fit"]["epochs"] == 30


@pytest.mark.parametrize("flags", [[], ["--data.val_size=0"], ["--trainer.logger=CSVLogger"]])
def test_a_fast_dev_run_trains_and_tests_a_few_batches_and_keeps_nothing(command: Command, flags: list[str]) -> None:
    out = command.succeed("fit", "--trainer.fast_dev_run=3", *flags)
    assert "test/accuracy" in out
    assert out.endswith("a trial run: nothing is recorded\n")
    assert "next" not in out
    assert sorted(path.name for path in Path().iterdir()) == ["data"]


def test_a_fast_dev_run_loads_initial_weights(trained: Command) -> None:
    best = RUN.checkpoints / "best.ckpt"
    code, out, _ = trained("fit", "--init_from", best, "--trainer.fast_dev_run=1")
    assert (code, f"weights from {best}\n" in out) == (0, True)
