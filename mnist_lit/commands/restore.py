"""A checkpoint with its model, data and Trainer: the start of every command that uses one."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from warnings import catch_warnings

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from torch import Tensor

from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands.ensemble import average
from mnist_lit.commands.settings import (
    build_data,
    build_parser,
    instantiate,
    parse,
    set_checkpoint_defaults,
)
from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.catalog import DATASETS, is_same
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.series import find_checkpoints
from mnist_lit.system.errors import UsageError
from mnist_lit.training.trainer import build_trainer

__all__ = ["Restored", "restore", "restore_checkpoint"]

FULL_PRECISION = "32-true"


@dataclass(frozen=True)
class Restored:
    """A checkpoint with its model, data and Trainer; flags that are given win over its settings."""

    checkpoint: Checkpoint
    classifier: DigitClassifier
    trainer: Trainer
    config: Namespace
    may_read: bool
    """Whether the data set is in the catalog, or a folder named by the user: a checkpoint must not choose folders."""
    members: Sequence["Restored"] = ()
    """Of an ensemble; its other settings are those of the first."""

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoint, or those of all members."""
        return [member.checkpoint for member in self.members] or [self.checkpoint]

    @cached_property
    def data(self) -> MNISTDataModule:
        """The data module, which the classification of somebody's own pictures does not need.

        Raises:
            UsageError: if a setting is out of range, there is no such data set, or it has other images or classes.
        """
        if not self.may_read:
            raise UsageError(
                f"{self.checkpoint.path} was trained on a folder of images: give it, or another, with --data.dataset"
            )
        data = build_data(self.config.data)
        dataset, trained = data.dataset, self.checkpoint
        if (trained.shape, len(trained.classes)) != (dataset.shape, len(dataset.classes)):
            raise UsageError(
                f"{dataset.name} has {len(dataset.classes)} classes of images {dataset.shape}, "
                f"{trained.path} was trained on {len(trained.classes)} classes of images {trained.shape}"
            )
        if dataset.name not in DATASETS or trained.has_folder:  # of a folder: the same labels may be of other classes
            for ours, theirs in zip(dataset.classes, trained.classes, strict=True):
                if ours != theirs:
                    raise UsageError(f"{dataset.name} has a class {ours} where {trained.path} has {theirs}")
        return data

    def check_test_set(self) -> None:
        """Raise ValueError if the test set has images that the checkpoint was trained on."""
        if hashes := self.data.dataset.hashes:
            self._check_images("test", *hashes)

    def check_validation_set(self) -> None:
        """Raise ValueError if the validation set has images that the checkpoint was trained on."""
        if hashes := self.data.dataset.hashes:
            self.data.setup("validate")
            train, val = self.data.train_set.indices, self.data.val_set.indices
            self._check_images("validation", hashes[0][train], hashes[0][val])

    def _check_images(self, name: str, training: Tensor, images: Tensor) -> None:
        for checkpoint in self.checkpoints:
            if number := checkpoint.count_trained_on(images, training):
                raise ValueError(
                    f"{self.data.dataset.name} has changed: {checkpoint.path} was trained on {number:,} of the "
                    f"{len(images):,} {name} images. Undo the change, or train again"
                )

    def output(self, name: str) -> Path:
        """Return the file to write: `--output`, or `name` in the run folder; without a run, or for several, here."""
        run = None if self.members else self.checkpoint.run
        return Path(self.config.output or (run.folder if run else Path()) / name)


def restore(command: str, argv: Sequence[str]) -> Restored:
    """Return the checkpoint that a command's flags ask for, ready for use; of several, their ensemble.

    Raises:
        UsageError: if a flag is wrong, or several checkpoints classify different images.
        OSError, ValueError: if there is no such checkpoint, or it cannot be used.
    """
    config = parse(build_parser(command), argv)
    limit = f"limit_{'val' if command == 'validate' else command}_batches"
    if config.trainer.get(limit) == 0:
        raise UsageError(f"--trainer.{limit}: 0 leaves nothing to {command}")
    paths = find_checkpoints(config.ckpt_path or ["best"], config.experiment)
    members: list[Restored] = []
    for path in paths:
        member = restore_checkpoint(command, argv, path)
        if twin := next((other for other in members if _has_same_weights(member, other)), None):
            print(f"{path} has the same weights as {twin.checkpoint.path}, and does not count")
        else:
            print(f"checkpoint {path}")
            members.append(member)
    first, *others = members
    if not others:
        return first
    for other in others:
        _check_same_images(first.checkpoint, other.checkpoint)
    return replace(first, classifier=average([member.classifier for member in members]), members=members)


def _has_same_weights(one: Restored, other: Restored) -> bool:
    """Return whether two checkpoints are of the same training, which was repeated: an ensemble would count it twice."""
    ours, theirs = (list(restored.classifier.network.parameters()) for restored in (one, other))
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def _check_same_images(first: Checkpoint, other: Checkpoint) -> None:
    """Raise UsageError if two checkpoints classify other images, or into other classes."""
    datasets = [checkpoint.settings["data"]["dataset"] for checkpoint in (first, other)]
    if (first.shape, first.classes) != (other.shape, other.classes) or not is_same(*datasets):
        raise UsageError(
            f"{first.path} classifies {datasets[0]} {first.shape} and {other.path} {datasets[1]} {other.shape}: "
            "an ensemble needs the same data set and image size"
        )


def restore_checkpoint(command: str, argv: Sequence[str], path: Path) -> Restored:
    """Return a checkpoint, ready for use; the flags win over its settings.

    Raises:
        UsageError: if a flag is wrong.
        OSError, ValueError: if it cannot be used.
    """
    parser = build_parser(command)
    config = parse(parser, argv)
    checkpoint = Checkpoint.read_newest(path)
    defaults = checkpoint.settings | {"trainer": {"precision": checkpoint.precision}}
    given = config.data.dataset
    if given != parser.get_default("data.dataset") and not is_same(given, defaults["data"]["dataset"]):
        defaults["data"] |= {"val_size": None, "image_size": None if given in DATASETS else checkpoint.shape[1]}
    set_checkpoint_defaults(parser, defaults, checkpoint.path)
    images = {"shape": list(checkpoint.shape), "classes": len(checkpoint.classes)}
    settings = instantiate(parser, parse(parser, argv), images)
    checkpoint.load_into(settings.model)
    trainer = _build_trainer(settings.trainer, None if config.trainer.precision else checkpoint.precision)
    if trainer.world_size > 1:
        raise UsageError("only fit runs in several processes: leave --trainer.devices and --trainer.num_nodes at 1")
    may_read = settings.data.dataset in DATASETS or bool(checkpoint.run) or config.data.dataset == settings.data.dataset
    return Restored(checkpoint, settings.model, trainer, settings, may_read)


def _build_trainer(settings: Namespace, trained: str | None) -> Trainer:
    """Return a Trainer of the precision `trained` or, if this machine does not have it, of full precision."""
    if trained is None:
        return build_trainer(settings)
    with suppress(UsageError), catch_warnings(action="ignore"):  # Lightning's, that it takes another one
        if (trainer := build_trainer(settings)).precision == trained:
            return trainer
    trainer = build_trainer(vars(settings) | {"precision": FULL_PRECISION})
    print(f"trained in {trained}, which is not available here: evaluated in {FULL_PRECISION}")
    return trainer
