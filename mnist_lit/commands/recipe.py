"""The runs of an experiment, or a single run, with their results and their answers to the validation images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from jsonargparse import Namespace
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from mnist_lit.commands.restore import Restored, restore_checkpoint
from mnist_lit.commands.resume import CHANGEABLE, LIMITS
from mnist_lit.commands.settings import build_parser, parse
from mnist_lit.data import MNISTDataModule
from mnist_lit.runs.folders import Run, find_runs

__all__ = ["Answers", "Recipe", "differing_settings", "read_recipe"]

NOT_OF_A_RECIPE = tuple(
    f"{name}." for name in {"config", "ckpt_path", "experiment", "seed", "seeds", *CHANGEABLE} - {*LIMITS}
)


@dataclass(frozen=True)
class Answers:
    """The answers of several runs to the same validation images."""

    pixels: Tensor
    """uint8 (N, C, H, W)."""
    labels: Tensor
    """(N,)."""
    probabilities: Tensor
    """Of each run, (R, N, K)."""

    @cached_property
    def joint(self) -> Tensor:
        """The mean of the runs' probabilities, (N, K)."""
        return self.probabilities.mean(dim=0)

    @cached_property
    def correct(self) -> Tensor:
        """Whether the class with the largest joint probability is the label, (N,)."""
        return self.joint.argmax(dim=1) == self.labels

    @cached_property
    def calibration_error(self) -> float:
        """The mean of the runs' expected calibration errors."""
        classes = self.probabilities.shape[2]
        return fmean(
            float(multiclass_calibration_error(run, self.labels, classes, norm="l1")) for run in self.probabilities
        )

    def has_same_images(self, other: "Answers") -> bool:
        """Return whether others are answers to the same images, with the same labels."""
        return torch.equal(self.labels, other.labels) and torch.equal(self.pixels, other.pixels)


@dataclass(frozen=True)
class Recipe:
    """An experiment, or a single run."""

    name: str
    config: Namespace
    """Of its first run."""
    results: Mapping[int, dict[str, Any]]
    """Of each run, by its seed."""
    parameters: int
    images_per_epoch: int
    classes: Sequence[str]
    answers: Answers | None
    """None without validation."""

    @property
    def validation(self) -> dict[int, float]:
        """The validation accuracies, as recorded, by seed; none if there was no validation."""
        found = {seed: results["fit"]["best_val_accuracy"] for seed, results in self.results.items()}
        return found if self.answers else {}

    @property
    def test(self) -> list[float]:
        """The test accuracies, as recorded, of the runs that were tested."""
        return [results["test"]["accuracy"] for results in self.results.values() if "test" in results]

    @property
    def selects(self) -> bool:
        """Whether the best of several epochs was selected on the validation images, which raises its accuracy there."""
        return bool(self.validation) and self.config.select == "best_epoch" and self.mean("epochs") > 1

    def mean(self, name: str) -> float:
        """Return the mean of a result of the training, such as `epochs` or `seconds`."""
        return fmean(results["fit"][name] for results in self.results.values())


def read_recipe(folder: Path, flags: Sequence[str]) -> Recipe:
    """Return an experiment or a run, with the answers of its runs to their validation images.

    Args:
        folder: `runs/NAME` or `runs/NAME/version_<n>`.
        flags: such as `--data.data_dir`.

    Raises:
        OSError, ValueError: if there is no finished run, its runs differ in more than their seeds, or one is damaged.
    """
    runs, configs = _runs_by_seed(folder)
    results = {seed: run.results() for seed, run in runs.items()}
    validated = all(found["fit"]["best_val_accuracy"] is not None for found in results.values())
    answers: list[Tensor] = []
    for seed, run in runs.items():
        limit = configs[seed].trainer.limit_val_batches
        limits = [] if limit is None else [f"--trainer.limit_predict_batches={limit}"]
        restored = restore_checkpoint("predict", [*flags, *limits], run.checkpoints / "best.ckpt")
        if validated:
            answers.append(_classify_validation_images(restored))
    config, data = configs[next(iter(runs))], restored.data
    number = data.dataset.train_size - data.val_size
    batches, limit = number // data.batch_size, config.trainer.limit_train_batches
    if limit is not None:
        batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    return Recipe(
        folder.as_posix(),
        config,
        results,
        sum(parameter.numel() for parameter in restored.classifier.network.parameters()),
        batches * data.batch_size,
        restored.checkpoint.classes,
        _answers(data, answers) if validated else None,
    )


def differing_settings(configs: Sequence[Namespace]) -> list[str]:
    """Return the names of the settings in which recipes differ; their seeds and folders do not count."""
    names = sorted({name for config in configs for name in config.keys()})  # noqa: SIM118  # those within groups too
    return [
        name
        for name in names
        if not f"{name}.".startswith(NOT_OF_A_RECIPE)
        and any(config.get(name) != configs[0].get(name) for config in configs)
    ]


def _runs_by_seed(folder: Path) -> tuple[dict[int, Run], dict[int, Namespace]]:
    """Return the runs and their settings by seed; one run of each seed, since the others only repeat it.

    Raises:
        ValueError: if they are not of one recipe.
    """
    parser = build_parser("fit")
    runs: dict[int, Run] = {}
    configs: dict[int, Namespace] = {}
    for run in find_runs(folder):
        config = parse(parser, [f"--config={run.config}"])
        first = next(iter(configs), config.seed)
        for name in differing_settings([configs.get(first, config), config]):
            raise ValueError(
                f"{folder} has runs of more than one recipe: {name} is {configs[first].get(name)} in "
                f"{runs[first].folder.name} and {config.get(name)} in {run.folder.name}. Give single runs"
            )
        if config.seed in runs:
            print(f"{run.folder} repeats the seed of {runs[config.seed].folder}, and does not count")
        else:
            runs[config.seed], configs[config.seed] = run, config
    return runs, configs


def _answers(data: MNISTDataModule, probabilities: Sequence[Tensor]) -> Answers:
    """Return the probabilities of all runs, each (N, K), with the images."""
    indices = torch.as_tensor(data.val_set.indices)[: len(probabilities[0])]
    pixels, labels = data.val_set.dataset[indices]
    return Answers(pixels, labels, torch.stack([*probabilities]))


def _classify_validation_images(restored: Restored) -> Tensor:
    """Return the probabilities of the validation images, (N, K)."""
    restored.data.prepare_data()
    restored.check_validation_set()
    restored.data.setup("validate")
    batches = restored.trainer.predict(restored.classifier, restored.data.val_dataloader())
    return torch.cat(cast("list[Tensor]", batches))
