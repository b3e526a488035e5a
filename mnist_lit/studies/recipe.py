"""The runs of an experiment, or a single run, with their results and their answers to the validation images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from jsonargparse import Namespace
from torch import Tensor

from mnist_lit.calibration import count_parameters
from mnist_lit.commands.evaluate import Restored, restore_checkpoint
from mnist_lit.commands.flags import build_parser, parse
from mnist_lit.data import MNISTDataModule
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.results import calibration_error
from mnist_lit.studies.seeds import differing_settings, find_runs, limited, read_results
from mnist_lit.system.errors import UsageError
from mnist_lit.system.output import say

__all__ = ["Answers", "Recipe", "read_recipe"]


@dataclass(frozen=True)
class Answers:
    """The answers of several runs to the same validation images."""

    pixels: Tensor
    """Pixels of the images, uint8 (N, C, H, W)."""
    labels: Tensor
    """Labels of the images, (N,)."""
    probabilities: Tensor
    """The probabilities of each run, (R, N, K)."""
    classes: Sequence[str]
    inverted: bool = True
    """Whether the images are drawn inverted, as drawings are."""

    @cached_property
    def joint(self) -> Tensor:
        """The mean of the runs' probabilities, (N, K): an ensemble (Hansen & Salamon 1990, doi:10.1109/34.58871)."""
        return self.probabilities.mean(dim=0)

    @cached_property
    def correct(self) -> Tensor:
        """Whether the class with the largest joint probability is the label, (N,)."""
        return self.joint.argmax(dim=1) == self.labels

    @property
    def right(self) -> Tensor:
        """Whether each run is right about each image, (R, N)."""
        return self.probabilities.argmax(dim=2) == self.labels

    @property
    def calibration_error(self) -> float:
        """The mean of the runs' expected calibration errors, on the images to which their temperatures were fitted."""
        return fmean(calibration_error(run, self.labels)[0] for run in self.probabilities)

    def has_same_images(self, other: "Answers") -> bool:
        """Return whether `other` has answers to the same images, with the same labels."""
        return torch.equal(self.labels, other.labels) and torch.equal(self.pixels, other.pixels)


@dataclass(frozen=True)
class Recipe:
    """An experiment, or a single run."""

    name: str
    config: Namespace
    """The settings of its first run."""
    results: Mapping[int, dict[str, Any]]
    """The results of each run, by its seed."""
    failed: int
    """The number of runs that failed, which have no results."""
    parameters: int
    images_per_epoch: int | None
    """None if they are in a folder that is not there any more."""
    answers: Answers | None
    """None if there was no validation, or its images are not there any more."""

    def accuracies(self, stage: str) -> dict[int, float]:
        """Return the accuracies of a stage by seed, as recorded; none if there was no such stage."""
        return {seed: found[stage] for seed, found in self.results.items() if found[stage] is not None}

    def images(self, stage: str) -> int:
        """Return the number of images of a stage."""
        return min((int(run["images"][stage]) for run in self.results.values() if run[stage] is not None), default=0)

    @property
    def candidates(self) -> int:
        """The number of epochs of which the best on the validation images was selected, which raises its accuracy."""
        selects = self.accuracies("validation") and self.config.select == "best_epoch"
        epochs = max(int(found["epochs"]) for found in self.results.values()) if selects else 1
        return max(1, epochs // (self.config.trainer.check_val_every_n_epoch or 1))


def read_recipe(folder: Path, flags: Sequence[str]) -> Recipe:
    """Return an experiment or a run, with the answers of its runs to their validation images.

    Args:
        folder: `runs/NAME`, `runs/NAME/version_<n>` or `runs/NAME/seeds_<n>.json`.
        flags: such as `--data.data_dir`.

    Raises:
        OSError, ValueError: if there is no finished run, its runs differ in more than their seeds, or one is damaged.
    """
    found, failed = find_runs(folder)
    parser = build_parser("fit")
    configs = [parse(parser, [f"--config={run.config}"]) for run in found]
    if names := differing_settings(configs):
        reason = f"{folder} has runs of several recipes, which differ in {', '.join(names)}"
        raise ValueError(f"{reason}: give single runs, or the seeds_<n>.json of fit --seeds")
    failed = [run for run in failed if not differing_settings([configs[0], parse(parser, [f"--config={run.config}"])])]
    seeds = [config.seed for config in configs]
    runs = {seed: found[seeds.index(seed)] for seed in seeds}
    if len(runs) < len(found):
        say(f"{folder} has several runs of the same seed, of which the first one counts")
    flags = [*flags, f"--trainer.limit_predict_batches={json.dumps(configs[0].trainer.limit_val_batches)}"]
    best = (Checkpoint.read(run.checkpoints / "best.ckpt") for run in runs.values())
    members = [restore_checkpoint("predict", flags, checkpoint) for checkpoint in best]
    results = {seed: read_results(run) for seed, run in runs.items()}
    images, answers = None, None
    try:
        images = _images_per_epoch(members[0].data, configs[0].trainer.limit_train_batches)
        if None in (found["validation"] for found in results.values()):
            say(f"no verdict about {folder}, which had no validation")
        else:
            answers = _classify_validation_images(members)
    except (OSError, ValueError, UsageError) as error:  # images of a folder have been moved or changed
        say(f"no verdict about {folder}, whose validation images cannot be classified now: {error}")
    parameters = count_parameters(members[0].classifier.network)
    return Recipe(folder.as_posix(), configs[0], results, len(failed), parameters, images, answers)


def _images_per_epoch(data: MNISTDataModule, limit: float | None) -> int:
    return limited((data.dataset.train_size - data.val_size) // data.batch_size, limit) * data.batch_size


def _classify_validation_images(members: Sequence[Restored]) -> Answers:
    """Return the answers of the members of a recipe, which have the same validation images."""
    data = members[0].data
    data.prepare_data()
    data.setup("validate")
    probabilities = []
    for member in members:
        member.checkpoint.check_images(data.dataset)
        batches = member.build_trainer().predict(member.classifier, data.val_dataloader())
        probabilities.append(torch.cat(cast("list[Tensor]", batches)))
    pixels, labels = cast("tuple[Tensor, Tensor]", data.val_set.__getitems__([*range(len(probabilities[0]))]))
    inverted = data.dataset.kind != "photographs"
    return Answers(pixels, labels, torch.stack(probabilities), members[0].checkpoint.classes, inverted)
