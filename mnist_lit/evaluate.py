"""A checkpoint in use: what every such command starts with; validate and test."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import catch_warnings

from jsonargparse import Namespace
from lightning.pytorch import Trainer

from mnist_lit.checkpoints import load_weights, open_checkpoint, precision_of, read_checkpoint, settings_of
from mnist_lit.classifier import DigitClassifier
from mnist_lit.data import TRAIN_IMAGES, MNISTDataModule
from mnist_lit.processes import rank_zero_only
from mnist_lit.results import calibration_line, evaluation, evaluation_line
from mnist_lit.runs import Run, find_checkpoint, run_of
from mnist_lit.settings import build_parser, instantiate, parse, take_defaults
from mnist_lit.trainer import build_trainer
from mnist_lit.usage import UsageError

__all__ = ["Restored", "other_split", "report_test", "restore", "test", "validate"]

TEST_IMAGES = 10_000
FULL = "32-true"


def validate(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on its validation set."""
    restored = restore("validate", argv)
    trained = settings_of(restored.content)["data"]
    for name in other_split(trained, restored.data):
        raise UsageError(f"--data.{name}: leave it at {trained[name]}, or images would be among those trained on")
    if not restored.data.val_size:
        raise ValueError(f"{restored.path} was trained on all {TRAIN_IMAGES:,} images: there is no validation set")
    restored.trainer.validate(restored.classifier, restored.data, verbose=False)
    loss = float(restored.trainer.callback_metrics["val/loss"])
    print(evaluation_line("validation", evaluation(restored.classifier.confusion.compute(), loss)))


def test(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on the test set; the result goes to the run that the checkpoint lies in."""
    restored = restore("test", argv)
    restored.trainer.test(restored.classifier, restored.data, verbose=False)
    report_test(restored.trainer, restored.classifier, restored.data, restored.path)


def other_split(trained: dict[str, Any], data: MNISTDataModule) -> list[str]:
    """Return the settings by which the validation set has images that a checkpoint was trained on.

    Args:
        trained: the data settings of the checkpoint.
        data: of the validation.
    """
    if trained["dataset"] != data.dataset.name:
        return []
    if data.split_seed == trained["split_seed"] and data.val_size and trained["val_size"] % data.val_size == 0:
        return []  # the places of the smaller set are among those of the larger one, see `order.split`
    return [name for name in ("val_size", "split_seed") if data.hparams[name] != trained[name]]


@dataclass(frozen=True)
class Restored:
    """A checkpoint in use: what it was made of, but for the flags that are given."""

    path: Path
    content: dict[str, Any]
    classifier: DigitClassifier
    data: MNISTDataModule
    trainer: Trainer
    config: Namespace

    @property
    def run(self) -> Run | None:
        """The run that the checkpoint lies in, if it lies in one."""
        return run_of(self.path)

    def target(self, name: str) -> Path:
        """Return the file to write: `--output`, or `name` in the run folder, or here where there is none."""
        return Path(self.config.output or (self.run.folder if self.run else Path()) / name)


def restore(command: str, argv: Sequence[str]) -> Restored:
    """Return what a command's flags ask for: a checkpoint with all that it needs, ready for use.

    Raises:
        UsageError: if a flag is wrong.
        OSError, ValueError: if there is no such checkpoint, or it cannot be used.
    """
    parser = build_parser(command)
    config = parse(parser, argv)
    limit = f"limit_{'val' if command == 'validate' else command}_batches"
    if config.trainer.get(limit) == 0:
        raise UsageError(f"--trainer.{limit}: 0 leaves nothing to {command}")
    path, content = open_checkpoint(find_checkpoint(config.ckpt_path or "best", config.experiment))
    take_defaults(parser, settings_of(content) | {"trainer": {"precision": precision_of(content)}}, path)
    settings = instantiate(parser, parse(parser, argv))
    load_weights(settings.model, content, path)
    trainer = _trainer(settings.trainer, None if config.trainer.precision else precision_of(content))
    if trainer.world_size > 1:
        raise UsageError("only fit runs in several processes: leave --trainer.devices and --trainer.num_nodes at 1")
    print(f"checkpoint {path}")
    return Restored(path, content, settings.model, settings.data, trainer, settings)


def _trainer(settings: Namespace, trained: str | None) -> Trainer:
    """Return a Trainer of the precision `trained` or, where this machine does not have it, of full precision."""
    if trained is None:
        return build_trainer(settings)
    with suppress(UsageError), catch_warnings(action="ignore"):  # Lightning's, that it takes another one
        if (trainer := build_trainer(settings)).precision == trained:
            return trainer
    trainer = build_trainer(vars(settings) | {"precision": FULL})
    print(f"trained in {trained}, which is not available here: evaluated in {FULL}")
    return trainer


@rank_zero_only
def report_test(trainer: Trainer, classifier: DigitClassifier, data: MNISTDataModule, path: Path) -> str:
    """Print the test's result, record it in the run that the checkpoint lies in if it is its own, and return it."""
    if "test/loss" not in trainer.callback_metrics:
        print(untested := "not tested: the limit of test batches is 0")
        return untested
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    result = evaluation(classifier.confusion.compute(), logged["test/loss"])
    errors = logged["test/calibration_error_before"], logged["test/calibration_error"]
    line = f"{evaluation_line('test', result)}\n{calibration_line(float(classifier.temperature), *errors)}"
    print(line)
    if (run := run_of(path)) is None:
        return line
    content = read_checkpoint(path)
    trained_on, precision = settings_of(content)["data"]["dataset"], precision_of(content)
    if path.name != "best.ckpt":
        print(f"not recorded in {run.folder}: its result is that of best.ckpt")
    elif (result["total"], data.dataset.name) != (TEST_IMAGES, trained_on):
        print(f"not recorded in {run.folder}: its result is that of all {TEST_IMAGES:,} images of {trained_on}")
    elif trainer.precision != precision:
        print(f"not recorded in {run.folder}: its result is that of precision {precision}")
    else:
        run.record(test=result | {"checkpoint": f"{run.checkpoints.name}/{path.name}"})
    return line
