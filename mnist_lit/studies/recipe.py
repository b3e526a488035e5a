"""The runs of an experiment, or a single run, with their results and their answers to the validation images."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from jsonargparse import Namespace
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from mnist_lit.commands.evaluate import Restored, restore_checkpoint
from mnist_lit.commands.fit import NOT_OF_THE_EXPERIMENT
from mnist_lit.commands.flags import build_parser, parse
from mnist_lit.data import MNISTDataModule
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import RESULTS, Run
from mnist_lit.studies.seeds import find_runs
from mnist_lit.system.errors import UsageError
from mnist_lit.training.inspection import count_parameters

__all__ = ["Answers", "Recipe", "differing_settings", "read_recipe"]

NOT_OF_A_RECIPE = tuple(f"{name}." for name in {"ckpt_path", "experiment", "seed", "seeds", *NOT_OF_THE_EXPERIMENT})


@dataclass(frozen=True)
class Answers:
    """The answers of several runs to the same validation images."""

    pixels: Tensor
    """uint8 (N, C, H, W)."""
    labels: Tensor
    """(N,)."""
    probabilities: Tensor
    """The probabilities of each run, (R, N, K)."""

    @cached_property
    def joint(self) -> Tensor:
        """The mean of the runs' probabilities, (N, K)."""
        return self.probabilities.mean(dim=0)

    @cached_property
    def correct(self) -> Tensor:
        """Whether the class with the largest joint probability is the label, (N,)."""
        return self.joint.argmax(dim=1) == self.labels

    @property
    def ensemble_accuracy(self) -> float:
        """The accuracy of the mean probabilities (Hansen & Salamon 1990, doi:10.1109/34.58871)."""
        return float(self.correct.double().mean())

    @cached_property
    def accuracies(self) -> Tensor:
        """The fraction of the runs that classify each image correctly, (N,)."""
        return (self.probabilities.argmax(dim=2) == self.labels).double().mean(dim=0)

    @cached_property
    def calibration_error(self) -> float:
        """The mean of the runs' expected calibration errors."""
        classes = self.probabilities.shape[2]
        return fmean(
            float(multiclass_calibration_error(run, self.labels, classes, norm="l1")) for run in self.probabilities
        )

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
    parameters: int
    images_per_epoch: int | None
    """None if they are in a folder that is not there any more."""
    classes: Sequence[str]
    answers: Answers | None
    reason: str = ""
    """Why there are no answers."""

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
        folder: `runs/NAME`, `runs/NAME/version_<n>` or `runs/NAME/seeds_<n>.json`.
        flags: such as `--data.data_dir`.

    Raises:
        OSError, ValueError: if there is no finished run, its runs differ in more than their seeds, or one is damaged.
    """
    runs, configs = _runs_by_seed(folder)
    results = {seed: _results(run) for seed, run in runs.items()}
    members = [
        restore_checkpoint("predict", [*flags, *_limits(configs[seed])], Checkpoint.read(run.checkpoints / "best.ckpt"))
        for seed, run in runs.items()
    ]
    first, config = members[0], next(iter(configs.values()))
    answers, reason, images = None, "had no validation", None
    with suppress(OSError, ValueError, UsageError):
        images = _images_per_epoch(first.data, config)
    if all(found["fit"]["best_val_accuracy"] is not None for found in results.values()):
        try:
            answers = _classify_validation_images(members)
        except (OSError, ValueError, UsageError) as error:  # images of a folder have been moved or changed
            reason = f"cannot classify its validation images now: {error}"
    return Recipe(
        folder.as_posix(),
        config,
        results,
        count_parameters(first.classifier.network),
        images,
        first.checkpoint.classes,
        answers,
        reason,
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
    """Return the runs and their settings by seed; one run of each seed, since another one only repeats it.

    Raises:
        ValueError: if they are not of one recipe.
    """
    parser = build_parser("fit")
    runs: dict[int, Run] = {}
    configs: dict[int, Namespace] = {}
    for run in find_runs(folder):
        config = parse(parser, [f"--config={run.config}"])
        for other in [*runs][:1]:
            for name in differing_settings([configs[other], config]):
                raise ValueError(
                    f"{folder} has runs of more than one recipe: {name} is {configs[other].get(name)} in "
                    f"{runs[other].folder.name} and {config.get(name)} in {run.folder.name}. Give single runs, or the "
                    "seeds_<n>.json of fit --seeds; and another --experiment to the next recipe"
                )
        if config.seed in runs:
            print(f"{run.folder} repeats the seed of {runs[config.seed].folder}, and does not count")
        else:
            runs[config.seed], configs[config.seed] = run, config
    return runs, configs


def _results(run: Run) -> dict[str, Any]:
    """Return the results of a run.

    Raises:
        ValueError: naming the file, if a number is missing in it.
    """
    results = run.results()
    validation = results["fit"].get("best_val_accuracy", "missing")
    tested = results["test"].get("accuracy") if "test" in results else 0
    numbers = [
        results["fit"].get("epochs"),
        results["fit"].get("seconds"),
        0 if validation is None else validation,
        tested,
    ]
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError(f"{run.folder / RESULTS} does not contain the results of a run: repair or remove it")
    return results


def _images_per_epoch(data: MNISTDataModule, config: Namespace) -> int:
    batches: int = (data.dataset.train_size - data.val_size) // data.batch_size
    limit = config.trainer.limit_train_batches
    if limit is not None:
        batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    return batches * data.batch_size


def _limits(config: Namespace) -> list[str]:
    """Return the flag that limits a prediction to the images of the run's validation."""
    limit = config.trainer.limit_val_batches
    return [] if limit is None else [f"--trainer.limit_predict_batches={limit}"]


def _classify_validation_images(members: Sequence[Restored]) -> Answers:
    """Return the answers of the members of a recipe, which have the same validation images.

    Raises:
        OSError, ValueError, UsageError: if the images are not there any more, or have changed.
    """
    data = members[0].data
    data.prepare_data()
    data.setup("validate")
    probabilities = []
    for member in members:
        member.checkpoint.check_images(data.dataset)
        batches = member.build_trainer().predict(member.classifier, data.val_dataloader())
        probabilities.append(torch.cat(cast("list[Tensor]", batches)))
    pixels, labels = cast("tuple[Tensor, Tensor]", data.val_set.__getitems__(list(range(len(probabilities[0])))))
    return Answers(pixels, labels, torch.stack(probabilities))
