"""The Trainer that is built from the settings of a run."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.callbacks import TQDMProgressBar

from mnist_lit.commands.flags import build_parser, instantiate, parse
from mnist_lit.runs.folders import Run, new_run
from mnist_lit.system.errors import UsageError
from mnist_lit.training.trainer import build_trainer, build_training


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return new_run("a")


def build(run: Run, *argv: str) -> Trainer:
    """Return the Trainer of a run of `fit`."""
    parser = build_parser("fit")
    settings = instantiate(parser, config := parse(parser, argv))
    return build_training(config, settings.trainer, run, settings.model, settings.data).trainer


def build_without_run(*argv: str) -> Trainer:
    """Return the Trainer of other commands."""
    parser = build_parser("fit")
    return build_trainer(instantiate(parser, parse(parser, argv)).trainer)


USER_BAR = "--trainer.callbacks=[{class_path: TQDMProgressBar}]"
FORKED = ("ddp_spawn", "ddp_fork", "ddp_notebook")
SPAWN = "{class_path: DDPStrategy, init_args: {start_method: spawn}}"
SCHEDULER = "[{class_path: GradientAccumulationScheduler, init_args: {scheduling: {0: 2}}}]"
OUT_OF_RANGE = (
    *(("accumulate_grad_batches", 0), ("check_val_every_n_epoch", 0), ("val_check_interval", 0)),
    *(("gradient_clip_val", -1), ("gradient_clip_val", ".nan")),
)


def find_callbacks(trainer: Trainer, kind: type) -> list[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def test_user_progress_bar_replaces_the_default_one(run: Run) -> None:
    for flags in ([USER_BAR], [USER_BAR, "--trainer.enable_progress_bar=true"]):
        [bar] = find_callbacks(build(run, *flags), LightningProgressBar)
        assert type(bar) is TQDMProgressBar
    with pytest.raises(UsageError, match="enable_progress_bar=False"):
        build(run, USER_BAR, "--trainer.enable_progress_bar=false")


def test_progress_bar_is_enabled_in_a_terminal_or_by_its_flag(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not find_callbacks(build(run), TQDMProgressBar)
    assert find_callbacks(build(run, "--trainer.enable_progress_bar=true"), TQDMProgressBar)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert find_callbacks(build(run), TQDMProgressBar)
    assert not find_callbacks(build(run, "--trainer.enable_progress_bar=false"), TQDMProgressBar)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        *((f"strategy={name}", f"strategy: {name} is not supported: give ddp$") for name in FORKED),
        (f"strategy={SPAWN}", "strategy: DDPStrategy is not supported: give ddp$"),
        (f"callbacks={SCHEDULER}", "callbacks: GradientAccumulationScheduler cannot be used: .* set --trainer.acc"),
        *((f"{name}={value}", f"{name} must ") for name, value in OUT_OF_RANGE),
    ],
)
def test_what_cannot_be_trained_with_is_a_usage_error(flag: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^--trainer.{message}"):
        build_without_run("--trainer.accelerator=cpu", "--trainer.devices=2", f"--trainer.{flag}")
