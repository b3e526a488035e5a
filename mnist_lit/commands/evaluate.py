"""Restore a checkpoint with its model, data and Trainer; validate it, or test it."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from warnings import catch_warnings

from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer

from mnist_lit.calibration import CalibratedNetwork
from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands.flags import build_data, build_parser, find_flags, instantiate, parse, set_checkpoint_defaults
from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.catalog import DATASETS, is_same
from mnist_lit.datasets.images import SUFFIXES
from mnist_lit.datasets.sampling import changed_split
from mnist_lit.runs.checkpoints import FULL_PRECISION, Checkpoint
from mnist_lit.runs.folders import find_checkpoint
from mnist_lit.runs.results import evaluation_results, format_evaluation
from mnist_lit.system.errors import UsageError
from mnist_lit.system.output import say
from mnist_lit.training.evaluation import Outputs, other_metrics, report_test
from mnist_lit.training.trainer import build_trainer

__all__ = ["Restored", "check_output", "restore", "restore_checkpoint", "test", "validate"]


@dataclass(frozen=True)
class Restored:
    """A checkpoint with its model, data and Trainer; flags that are given win over its settings."""

    checkpoint: Checkpoint
    classifier: DigitClassifier
    config: Namespace
    may_read: bool
    """Whether its data set is in the catalog or given by a flag, or the checkpoint is in a run folder: a file from
    somewhere else must not choose folders."""

    @property
    def model(self) -> CalibratedNetwork:
        """The network with its temperature: pixels to probabilities."""
        return CalibratedNetwork(self.classifier.network, self.classifier.temperature)

    @cached_property
    def data(self) -> MNISTDataModule:
        """The data module, which the classification of somebody's own pictures does not need.

        Raises:
            UsageError: if a setting is out of range, there is no such data set, or it has other images or classes.
            ValueError: if the images of a folder have changed since the training.
        """
        if not self.may_read:
            given = f"{self.checkpoint.path} was trained on a folder of images"
            raise UsageError(f"{given}: give its path, or that of another one, with --data.dataset")
        data = build_data(self.config.data)
        dataset, trained = data.dataset, self.checkpoint
        if (trained.shape, len(trained.classes)) != (dataset.shape, len(dataset.classes)):
            raise UsageError(
                f"{dataset.name} has {len(dataset.classes)} classes of images {dataset.shape}, "
                f"{trained.path} was trained on {len(trained.classes)} classes of images {trained.shape}"
            )
        if not {dataset.name, trained.settings["data"]["dataset"]} <= DATASETS.keys():  # folders: labels may differ
            for ours, theirs in zip(dataset.classes, trained.classes, strict=True):
                if ours != theirs:
                    raise UsageError(f"{dataset.name} has a class {ours} where {trained.path} has {theirs}")
        same = is_same(dataset.name, trained.settings["data"]["dataset"])
        if same and self.config.data.fit != trained.settings["data"]["fit"]:  # other pixels
            raise UsageError("--data.fit: images are prepared as in the training: leave this flag out")
        trained.check_images(dataset)
        return data

    def build_trainer(self, *callbacks: Callback) -> Trainer:
        """Return a Trainer of the training's precision or, if this machine does not have it, of full precision.

        Raises:
            UsageError: if a flag is refused.
        """
        settings, trained, trainer = self.config.trainer, self.checkpoint.precision, None
        with suppress(UsageError), catch_warnings(action="ignore"):  # Lightning warns when it takes another precision
            trainer = build_trainer(settings, callbacks)
        if not trainer or trainer.precision != trained:
            if settings.precision == trained:  # which no flag has asked for
                settings = vars(settings) | {"precision": FULL_PRECISION}
                say(f"trained in {trained}, which is not available here: evaluated in {FULL_PRECISION}")
            trainer = build_trainer(settings, callbacks)
        if trainer.world_size > 1:
            raise UsageError("only fit runs in several processes: leave --trainer.devices and --trainer.num_nodes at 1")
        return trainer

    def require_same_images(self) -> None:
        """Raise UsageError if a flag changes the images: pictures are prepared as those of the training were."""
        for setting in ("dataset", "image_size", "fit"):
            if self.config.data[setting] != self.checkpoint.settings["data"].get(setting):
                raise UsageError(f"--data.{setting}: pictures are prepared as in the training: leave this flag out")

    def output(self, name: str) -> Path:
        """Return the file to write: the one given, or `name` in the run folder; without a run, here.

        Raises:
            UsageError: if it would be written over what the command reads, or over any image.
        """
        run = self.checkpoint.run
        target = self.config.output or (run.folder if run else Path()) / name
        return check_output(target, self.config, self.checkpoint.path)


def check_output(target: str | Path, flags: Namespace, *read: Path) -> Path:
    """Return the path of a file to write.

    Args:
        target: the path.
        flags: the flags of the command, whose config files and pictures are inputs.
        *read: other inputs.

    Raises:
        UsageError: if it would be written over one of the inputs, or over any image.
    """
    path, inputs = Path(target), [*read, *map(str, flags.config or []), *flags.get("images", [])]
    if path.is_file() and (path.suffix.lower() in SUFFIXES or os.path.realpath(path) in map(os.path.realpath, inputs)):
        raise UsageError(f"--output: {path} is an input: give the name of another file")
    return path


def restore(command: str, argv: Sequence[str]) -> Restored:
    """Return the checkpoint that a command's flags ask for, ready for use.

    Raises:
        UsageError: if a flag is wrong.
        OSError, ValueError: if there is no such checkpoint, or it cannot be used.
    """
    given = find_flags(argv, "ckpt_path", "experiment")
    try:
        path = find_checkpoint(given.get("ckpt_path", "best"), given.get("experiment"))
    except FileNotFoundError:
        parse(build_parser(command), argv)  # a wrong flag may be the reason
        raise
    checkpoint = Checkpoint.read_newest(path)
    say(f"checkpoint {checkpoint.path}")
    restored = restore_checkpoint(command, argv, checkpoint)
    limit = f"limit_{'val' if command == 'validate' else command}_batches"
    if restored.config.trainer.get(limit) == 0:
        raise UsageError(f"--trainer.{limit}: 0 leaves nothing to {command}")
    return restored


def restore_checkpoint(command: str, argv: Sequence[str], checkpoint: Checkpoint) -> Restored:
    """Return a checkpoint, ready for use; the flags win over its settings.

    Raises:
        UsageError: if a flag is wrong.
        ValueError: if it cannot be used.
    """
    parser, given = build_parser(command), find_flags(argv, "data.dataset").get("data.dataset")
    defaults: dict[str, dict[str, Any]] = checkpoint.settings | {"trainer": {"precision": checkpoint.precision}}
    if given and not is_same(given, defaults["data"]["dataset"]):
        defaults["data"] |= {
            "val_size": None,
            "split_seed": 0,
            "image_size": None if given in DATASETS else checkpoint.shape[1],
            "fit": "crop" if given in DATASETS else defaults["data"]["fit"],
        }
    set_checkpoint_defaults(parser, defaults, checkpoint.path)
    images = {"shape": list(checkpoint.shape), "classes": len(checkpoint.classes)}
    settings = instantiate(parser, parse(parser, argv), images)
    checkpoint.load_into(settings.model)
    may_read = bool(given or checkpoint.run) or settings.data.dataset in DATASETS
    return Restored(checkpoint, settings.model, settings, may_read)


def validate(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on its validation set.

    Raises:
        UsageError: if a flag is wrong, or would put training images into the validation set.
        ValueError: if there is no validation set.
    """
    restored, outputs = restore("validate", argv), Outputs()
    checkpoint, data = restored.checkpoint, restored.data
    trained = checkpoint.settings["data"]
    if checkpoint.was_trained_on(data.dataset):
        for name in changed_split(trained, data.hparams):
            raise UsageError(f"--data.{name}: leave it at {trained[name]}, or training images would be validated")
    if not data.val_size:
        if trained["val_size"]:
            raise UsageError("--data.val_size: 0 leaves nothing to validate")
        size = data.dataset.train_size
        raise ValueError(f"{checkpoint.path} was trained on all {size:,} images: there is no validation set")
    trainer = restored.build_trainer(outputs)
    trainer.validate(restored.classifier, data, verbose=False)
    loss = float(trainer.callback_metrics["val/loss"])
    say(format_evaluation("validation", evaluation_results(outputs.confusion(), loss)))
    for name, value in other_metrics(trainer, "val").items():
        say(f"val/{name} {value:.4f}")


def test(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on the test set, and record the result in the run that the checkpoint is in."""
    restored, outputs = restore("test", argv), Outputs()
    checkpoint, data, trainer = restored.checkpoint, restored.data, restored.build_trainer(outputs)
    dataset = data.dataset
    trainer.test(restored.classifier, data, verbose=False)
    results, lines = report_test(trainer, restored.classifier, dataset.classes, outputs)
    say(*lines)
    if not (run := checkpoint.run):
        return
    if checkpoint.path.name != "best.ckpt":
        reason = "best.ckpt"
    elif not checkpoint.was_trained_on(dataset):
        reason = str(checkpoint.settings["data"]["dataset"])
    elif results["total"] != dataset.test_size:
        reason = f"all {dataset.test_size:,} images of {dataset.name}"
    elif trainer.precision != checkpoint.precision:
        reason = f"precision {checkpoint.precision}"
    else:
        run.record(test=results)
        return
    say(f"not recorded: {run.folder} records tests with {reason} only")
