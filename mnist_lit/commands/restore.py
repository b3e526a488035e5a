"""A checkpoint with its model, data and Trainer: the start of every command that uses one."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from warnings import catch_warnings

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from torch import Tensor

from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands.settings import (
    build_data,
    build_parser,
    instantiate,
    parse,
    set_checkpoint_defaults,
)
from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.catalog import DATASETS, is_same
from mnist_lit.runs.checkpoints import FULL_PRECISION, Checkpoint, find_output
from mnist_lit.runs.ensemble import Ensemble, choose_members
from mnist_lit.runs.series import find_checkpoints
from mnist_lit.system.errors import UsageError
from mnist_lit.training.trainer import build_trainer

__all__ = ["Restored", "restore", "restore_checkpoint"]


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

    def require_same_images(self) -> None:
        """Raise UsageError if a flag changes the images: pictures are prepared as those of the training were."""
        for setting in ("dataset", "image_size"):
            if self.config.data[setting] != self.checkpoint.settings["data"].get(setting):
                raise UsageError(f"--data.{setting}: pictures are prepared as in the training of the checkpoint")

    def output(self, name: str) -> Path:
        """Return the file to write (see `find_output`)."""
        return find_output(self.config.output, name, self.checkpoints)


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
    checkpoints = choose_members([Checkpoint.read_newest(path) for path in paths])
    members = [restore_checkpoint(command, argv, checkpoint) for checkpoint in checkpoints]
    first, *others = members
    if not others:
        return first
    joint = DigitClassifier(**first.classifier.hparams)
    joint.network = Ensemble([member.classifier for member in members])  # type: ignore[assignment]  # any network serves
    return replace(first, classifier=joint, members=members)


def restore_checkpoint(command: str, argv: Sequence[str], checkpoint: Checkpoint) -> Restored:
    """Return a checkpoint, ready for use; the flags win over its settings.

    Raises:
        UsageError: if a flag is wrong.
        ValueError: if it cannot be used.
    """
    parser = build_parser(command)
    config = parse(parser, argv)
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
