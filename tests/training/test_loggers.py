"""Loggers of a run: TensorBoard, and those that are added with a flag."""

import csv
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import RUN, SHORT, TRAIN, Command, callback
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, mlflow, wandb
from lightning_utilities.core.imports import RequirementCache
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lit.commands.flags import build_parser, instantiate, parse
from mnist_lit.runs.folders import Run
from mnist_lit.training.checkpointing import DurableCheckpointIO
from mnist_lit.training.loggers import RunLogger, build_loggers


def columns(version: int) -> set[str]:
    """Return the column names of a CSV log."""
    with (RUN.folder / f"csv/version_{version}/metrics.csv").open(encoding="utf-8") as file:
        return set(csv.DictReader(file).fieldnames or [])


def test_added_logger_logs_into_the_run_folder_and_into_a_new_file_when_resumed(command: Command) -> None:
    flags = ["--trainer.logger=CSVLogger", "--trainer.log_every_n_steps=5", "--trainer.max_epochs=1"]
    out = command.succeed("fit", *SHORT, *flags)
    assert {"train/loss", "val/accuracy", "test/accuracy", "lr-Adam"} <= columns(0)
    assert list(RUN.folder.glob("events*"))
    assert "tensorboard --logdir runs" in out
    before = (RUN.folder / "csv/version_0/metrics.csv").read_text(encoding="utf-8")
    assert command("fit", "--ckpt_path=last", "--trainer.max_epochs=2")[::2] == (0, "")
    assert (RUN.folder / "csv/version_0/metrics.csv").read_text(encoding="utf-8") == before
    assert "train/loss" in columns(1)


@pytest.mark.slow
def test_run_from_a_saved_config_logs_into_its_own_folder(command: Command) -> None:
    assert command("fit", *SHORT, "--trainer.logger=CSVLogger")[0] == 0
    before = sorted(RUN.folder.rglob("*"))
    assert command("fit", "--config", RUN.config)[::2] == (0, "")
    assert sorted(RUN.folder.rglob("*")) == before
    assert (RUN.folder.with_name("version_1") / "csv/version_0/metrics.csv").is_file()


def test_metrics_have_one_point_a_step_and_are_on_the_disk_before_the_checkpoint(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, list[int]]] = []
    save = DurableCheckpointIO.save_checkpoint

    def record(io: DurableCheckpointIO, content: dict[str, Any], path: str | Path, **more: Any) -> None:
        if Path(path).name == "last.ckpt":
            found.append(points())
        save(io, content, path, **more)

    monkeypatch.setattr(DurableCheckpointIO, "save_checkpoint", record)
    assert command("fit", *SHORT)[::2] == (0, "")
    tags = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
    assert found == [dict.fromkeys(tags, steps) for steps in ([19], [19, 39])]
    assert {tag: steps for tag, steps in points().items() if tag in tags} == found[1]


def points() -> dict[str, list[int]]:
    """Return the steps of the curves of training and validation, as they are on the disk."""
    events = EventAccumulator(str(RUN.folder)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "/" in tag and not tag.endswith("_by_step")]
    return {tag: [e.step for e in events.Scalars(tag)] for tag in tags}


def loggers(*argv: str) -> list[Any]:
    """Return the loggers of a `fit` command."""
    parser = build_parser("fit")
    return build_loggers(instantiate(parser, parse(parser, argv)).trainer.logger, RUN)


def test_several_loggers_and_another_folder() -> None:
    several = "[{class_path: CSVLogger, init_args: {save_dir: logs}}, {class_path: TensorBoardLogger}]"
    built = loggers(f"--trainer.logger={several}")
    assert [type(logger) for logger in built] == [RunLogger, CSVLogger, TensorBoardLogger]
    assert Path(built[1].log_dir) == Path("logs/csv/version_0")
    assert Path(built[2].log_dir) == RUN.folder / "tensorboard/version_0"


@pytest.mark.parametrize(
    ("flag", "rank", "number"), [("null", 0, 1), ("true", 0, 1), ("false", 0, 0), ("CSVLogger", 1, 1)]
)
def test_a_flag_without_a_name_and_other_processes_add_no_logger(
    flag: str, rank: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", f"{rank}")
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which a process of rank 1 replaces
    built = loggers(f"--trainer.logger={flag}", f"--trainer.devices={rank + 1}")
    assert [type(logger) for logger in built] == [RunLogger] * number


@pytest.mark.parametrize(
    ("module", "available", "name"),
    [(wandb, "_WANDB_AVAILABLE", "WandbLogger"), (mlflow, "_MLFLOW_AVAILABLE", "MLFlowLogger")],
)
def test_logger_that_is_not_installed_is_a_usage_error_without_a_run(
    command: Command, monkeypatch: pytest.MonkeyPatch, module: ModuleType, available: str, name: str
) -> None:
    monkeypatch.setattr(module, available, RequirementCache("no-such-package"))
    err = command.refuse("fit", f"--trainer.logger={name}")
    assert err.startswith(f"error: --trainer.logger: {name}: Requirement 'no-such-package' not met")
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("command")
@pytest.mark.parametrize(
    ("package", "flags", "expected"),
    [
        ("wandb", ["--trainer.logger=WandbLogger", "--trainer.logger.offline=true"], "wandb/offline-run-*/*.wandb"),
        ("mlflow", ["--trainer.logger=MLFlowLogger"], "mlflow.db"),
        ("rich", [callback("RichProgressBar")], "checkpoints/last.ckpt"),
    ],
)
def test_optional_package_works_with_one_flag(package: str, flags: list[str], expected: str) -> None:
    pytest.importorskip(package)
    for argv in ([*SHORT, *flags], ["--ckpt_path=last"]):
        process = subprocess.run([sys.executable, TRAIN, "fit", *argv], capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        assert list(RUN.folder.glob(expected))
        assert list(RUN.folder.glob("events.*")), "of TensorBoard, always"
        (RUN.folder / "results.json").unlink()


@pytest.mark.parametrize("given", [{}, {"tracking_uri": "http://localhost:5000"}])
def test_mlflow_uses_a_database_in_the_run_folder_by_default(
    given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {}
    monkeypatch.setattr(MLFlowLogger, "__init__", lambda _, **kwargs: arguments.update(kwargs))
    settings: dict[str, Any] = {"save_dir": "<run>", "tracking_uri": None, "artifact_location": None} | given
    build_loggers(partial(MLFlowLogger, **settings), Run(tmp_path))
    defaults = {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db", "artifact_location": str(tmp_path / "mlruns")}
    assert arguments == settings | {"save_dir": str(tmp_path)} | ({} if given else defaults)
