"""The Trainer that is built from the settings of a run."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
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


def build(run: Run | None, *argv: str, callbacks: Sequence[Callback] = ()) -> Trainer:
    """Return the Trainer of a `fit` command."""
    parser = build_parser("fit")
    return build_trainer(instantiate(parser, parse(parser, argv)).trainer, run, callbacks)


def find_callbacks(trainer: Trainer, kind: type) -> list[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def test_run_folder_contains_checkpoints_config_and_events(run: Run, data_dir: Path) -> None:
    run.config.touch()
    trainer = build(run, "--trainer.max_steps=60", callbacks=[KeepLast(run, 200, StopRequest())])
    trainer.fit(DigitClassifier(channels=[4]), MNISTDataModule(data_dir=str(data_dir)))
    assert sorted(path.name.split(".")[0] for path in run.folder.iterdir()) == ["checkpoints", "config", "events"]


def test_trainer_without_a_run_writes_no_files(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    classifier, data = DigitClassifier(channels=[4]), MNISTDataModule(data_dir=str(data_dir))
    trainer = build(None, "--trainer.max_steps=2", "--trainer.limit_val_batches=2")
    trainer.fit(classifier, data)
    trainer.validate(classifier, data, verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_logging_can_be_disabled(run: Run) -> None:
    assert build(run, "--trainer.logger=false").logger is None


def test_user_callbacks_are_added(run: Run) -> None:
    stop = '[{"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}]'
    trainer = build(run, "--trainer.callbacks", stop)
    assert find_callbacks(trainer, EarlyStopping)
    assert find_callbacks(trainer, EpochLines)


def test_user_progress_bar_replaces_the_default_one(run: Run) -> None:
    flag = "--trainer.callbacks=[{class_path: TQDMProgressBar}]"
    for flags in ([flag], [flag, "--trainer.enable_progress_bar=true"]):
        [bar] = find_callbacks(build(run, *flags), LightningProgressBar)
        assert type(bar) is TQDMProgressBar
    with pytest.raises(UsageError, match="enable_progress_bar=False"):
        build(run, flag, "--trainer.enable_progress_bar=false")


def test_progress_bar_is_enabled_in_a_terminal_or_by_its_flag(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not find_callbacks(build(run), ProgressBar)
    assert find_callbacks(build(run, "--trainer.enable_progress_bar=true"), ProgressBar)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert find_callbacks(build(run), ProgressBar)
    assert not find_callbacks(build(run, "--trainer.enable_progress_bar=false"), ProgressBar)


def test_error_of_the_trainer_is_a_usage_error(run: Run) -> None:
    with pytest.raises(UsageError, match="Trainer: "):
        build(run, "--trainer.accelerator=abacus")


@pytest.mark.parametrize(
    "strategy",
    ["ddp_spawn", "ddp_fork", "ddp_notebook", "{class_path: DDPStrategy, init_args: {start_method: spawn}}"],
)
def test_multiprocessing_strategy_is_refused(run: Run, strategy: str) -> None:
    name = strategy if strategy.startswith("ddp") else "DDPStrategy"
    with pytest.raises(UsageError, match=f"^--trainer.strategy: {name} is not supported: give ddp$"):
        build(run, "--trainer.accelerator=cpu", "--trainer.devices=2", f"--trainer.strategy={strategy}")


def test_sharded_strategy_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded = SimpleNamespace(strategy=object.__new__(FSDPStrategy))  # a real one needs GPUs
    monkeypatch.setattr("mnist_lit.training.trainer.Trainer", lambda **_: sharded)
    with pytest.raises(UsageError, match=r"^--trainer.strategy: fsdp is not supported: give ddp$"):
        build(run, "--trainer.strategy=fsdp")


def test_gradient_accumulation_scheduler_is_refused(run: Run) -> None:
    scheduler = "[{class_path: GradientAccumulationScheduler, init_args: {scheduling: {0: 2}}}]"
    message = r"GradientAccumulationScheduler cannot be used: .* set --trainer.accumulate_grad_batches"
    with pytest.raises(UsageError, match=message):
        build(run, f"--trainer.callbacks={scheduler}")


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
def test_number_out_of_range_is_a_usage_error(flag: str) -> None:
    with pytest.raises(UsageError, match=f"^--trainer.{flag.partition('=')[0]} must "):
        build(None, f"--trainer.{flag}")
