"""What a run logs and keeps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from lightning.pytorch.callbacks import ProgressBar as LightningBar
from lightning.pytorch.strategies import FSDPStrategy

from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands.settings import build_parser, instantiate, parse
from mnist_lit.data import MNISTDataModule
from mnist_lit.runs.folders import Run, new_run
from mnist_lit.system.errors import UsageError
from mnist_lit.system.signals import StopRequest
from mnist_lit.training.checkpointing import KeepLast
from mnist_lit.training.progress import EpochLines, ProgressBar
from mnist_lit.training.trainer import build_trainer


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return new_run("a")


def settings(*argv: str) -> Any:
    return parse(build_parser("fit"), argv).trainer


def built(*argv: str) -> Any:
    parser = build_parser("fit")
    return instantiate(parser, parse(parser, argv)).trainer


def fit(trainer: Trainer, data_dir: Path, val_size: int = 5_000) -> None:
    trainer.fit(DigitClassifier(channels=[4]), MNISTDataModule(val_size=val_size, data_dir=str(data_dir)))


def of_type(trainer: Trainer, kind: type) -> list[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def test_events_go_straight_into_the_run_folder_and_nothing_else_does(run: Run, data_dir: Path) -> None:
    run.config.touch()
    fit(build_trainer(settings("--trainer.max_steps=60"), run, [KeepLast(run, 200, StopRequest())]), data_dir)
    assert sorted(path.name.split(".")[0] for path in run.folder.iterdir()) == ["checkpoints", "config", "events"]


def test_a_users_callbacks_are_kept(run: Run) -> None:
    stop = '[{"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}]'
    trainer = build_trainer(built("--trainer.callbacks", stop), run)
    assert of_type(trainer, EarlyStopping)
    assert of_type(trainer, EpochLines)


def test_a_bar_that_is_named_replaces_the_runs_own(run: Run) -> None:
    named = "--trainer.callbacks=[{class_path: TQDMProgressBar}]"
    [bar] = of_type(build_trainer(built(named), run), LightningBar)
    assert type(bar) is TQDMProgressBar
    [bar] = of_type(build_trainer(built(named, "--trainer.enable_progress_bar=true"), run), LightningBar)
    assert type(bar) is TQDMProgressBar
    with pytest.raises(UsageError, match="enable_progress_bar=False"):
        build_trainer(built(named, "--trainer.enable_progress_bar=false"), run)


def test_logging_can_be_switched_off(run: Run) -> None:
    assert build_trainer(settings("--trainer.logger=false"), run).logger is None


def test_there_is_a_bar_where_output_is_a_terminal_or_where_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not of_type(build_trainer(settings(), run), ProgressBar)
    assert of_type(build_trainer(settings("--trainer.enable_progress_bar=true"), run), ProgressBar)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert of_type(build_trainer(settings(), run), ProgressBar)
    assert not of_type(build_trainer(settings("--trainer.enable_progress_bar=false"), run), ProgressBar)


def test_without_a_run_nothing_is_written(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = build_trainer(settings("--trainer.max_steps=2", "--trainer.limit_val_batches=2"))
    fit(trainer, data_dir)
    trainer.validate(DigitClassifier(channels=[4]), MNISTDataModule(data_dir=str(data_dir)), verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_what_the_trainer_refuses_is_a_usage_error(run: Run) -> None:
    with pytest.raises(UsageError, match="Trainer: "):
        build_trainer(settings("--trainer.accelerator=abacus"), run)


@pytest.mark.parametrize(
    "strategy",
    ["ddp_spawn", "ddp_fork", "ddp_notebook", "{class_path: DDPStrategy, init_args: {start_method: spawn}}"],
)
def test_a_strategy_that_does_not_start_the_program_itself_is_refused(run: Run, strategy: str) -> None:
    name = strategy if strategy.startswith("ddp") else "DDPStrategy"
    flags = ["--trainer.accelerator=cpu", "--trainer.devices=2", f"--trainer.strategy={strategy}"]
    with pytest.raises(UsageError, match=f"^--trainer.strategy: {name} is not supported: give ddp$"):
        build_trainer(built(*flags), run)


def test_a_strategy_that_spreads_the_weights_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded = SimpleNamespace(strategy=object.__new__(FSDPStrategy))  # the real one needs GPUs
    monkeypatch.setattr("mnist_lit.training.trainer.Trainer", lambda **_: sharded)
    with pytest.raises(UsageError, match=r"^--trainer.strategy: fsdp is not supported: give ddp$"):
        build_trainer(settings("--trainer.strategy=fsdp"), run)


def test_an_accumulation_that_would_not_go_on_is_refused(run: Run) -> None:
    scheduler = "[{class_path: GradientAccumulationScheduler, init_args: {scheduling: {0: 2}}}]"
    with pytest.raises(
        UsageError, match=r"GradientAccumulationScheduler cannot be used: .* set --trainer.accumulate_grad_batches"
    ):
        build_trainer(built(f"--trainer.callbacks={scheduler}"), run)


@pytest.mark.parametrize(
    "flag",
    [
        "accumulate_grad_batches=0",
        "check_val_every_n_epoch=0",
        "val_check_interval=0",
        "gradient_clip_val=-1",
        "gradient_clip_val=.nan",
        "devices=1000000000",
        "num_nodes=99999999999999999999",
    ],
)
def test_a_number_that_the_trainer_takes_but_cannot_train_with_is_wrong_usage(flag: str) -> None:
    with pytest.raises(UsageError, match=f"^--trainer.{flag.partition('=')[0]} must "):
        build_trainer(settings(f"--trainer.{flag}"))
