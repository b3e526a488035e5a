"""What each command does, from its flags to its results."""

import csv
import io
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from mnist_lit.checkpoints import load_weights, read_checkpoint, settings_of
from mnist_lit.classifier import DigitClassifier
from mnist_lit.data import TRAIN_IMAGES, MNISTDataModule
from mnist_lit.files import write_atomically
from mnist_lit.mirrors import without_password
from mnist_lit.model import DIGITS
from mnist_lit.results import evaluation, evaluation_line, fit_lines, training
from mnist_lit.runs import ROOT, Run, find_checkpoint, new_run, run_of
from mnist_lit.settings import build_parser, instantiate, parse, take_defaults
from mnist_lit.trainer import best_checkpoint, build_trainer, last_checkpoint
from mnist_lit.usage import UsageError

__all__ = ["fit", "predict", "test", "validate"]

TEST_IMAGES = 10_000


def fit(argv: Sequence[str]) -> None:
    """Train, keep the best checkpoint by validation accuracy and the last, then test the best one, once."""
    parser = build_parser("fit")
    config = parse(parser, argv)
    seed_everything(config.seed, verbose=False)
    settings = instantiate(parser, config)
    classifier, data = settings.model, settings.data
    data.prepare_data()  # before there is a run folder: no data, no run

    run = new_run(config.experiment)
    if data.val_size == 0:
        settings.trainer.limit_val_batches = 0  # or Lightning would wonder at an empty loader
    best = best_checkpoint(run, validated=settings.trainer.limit_val_batches != 0)
    last, timer = last_checkpoint(run), Timer()
    try:
        trainer = build_trainer(settings.trainer, run, [best, last, timer])
        if config.data.mirrors:
            config.data.mirrors = [without_password(mirror) for mirror in config.data.mirrors]
        write_atomically(run.config, parser.dump(config, skip_unset=False).encode())
    except BaseException:
        shutil.rmtree(run.folder)  # nothing has been trained yet
        with suppress(OSError):  # other runs are there
            os.removedirs(run.folder.parent)
        raise
    print(_opening(run, config.seed, trainer, classifier, data))
    trainer.fit(classifier, data)

    path = Path(best.best_model_path)
    content = read_checkpoint(path) if path.is_file() else None
    fitted = training(
        epochs=trainer.current_epoch,
        seconds=timer.time_elapsed("train"),
        images=(trainer.fit_loop.total_batch_idx + 1) * data.batch_size,
        best_epoch=content["epoch"] + 1 if content else None,
        best_val_accuracy=None if best.best_model_score is None else float(best.best_model_score),
    )
    run.record(fit=fitted)
    print(f"\n{fit_lines(fitted)}")
    if content is None:
        return
    load_weights(classifier, content, path)
    trainer.test(classifier, data, verbose=False)
    _report_test(trainer, classifier, data, path)
    program = f"python {sys.argv[0]}"
    print(f"\nnext:  tensorboard --logdir {ROOT}\n       {program} test\n       {program} predict")


def validate(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on its validation set."""
    restored = _restore("validate", argv)
    if not restored.data.val_size:
        raise ValueError(f"{restored.path} was trained on all {TRAIN_IMAGES:,} images: there is no validation set")
    restored.trainer.validate(restored.classifier, restored.data, verbose=False)
    loss = float(restored.trainer.callback_metrics["val/loss"])
    print(evaluation_line("validation", evaluation(restored.classifier.confusion.compute(), loss)))


def test(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on the test set; the result goes to the run that the checkpoint lies in."""
    restored = _restore("test", argv)
    restored.trainer.test(restored.classifier, restored.data, verbose=False)
    _report_test(restored.trainer, restored.classifier, restored.data, restored.path)


def predict(argv: Sequence[str]) -> None:
    """Write a CSV file with what a checkpoint reads in every test image."""
    restored = _restore("predict", argv)
    batches = restored.trainer.predict(restored.classifier, restored.data)
    probabilities = torch.cat(cast("list[Tensor]", batches))  # (N, 10)
    run = run_of(restored.path)
    target = Path(restored.output or (run.folder if run else Path()) / "predictions.csv")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "digit", "probability", *(f"p{digit}" for digit in range(DIGITS))])
    for image, row in enumerate(probabilities):
        writer.writerow([image, int(row.argmax()), *(f"{float(p):.6f}" for p in (row.max(), *row))])
    write_atomically(target, table.getvalue().encode())
    print(f"{len(probabilities):,} test images read: {target}")


@dataclass(frozen=True)
class Restored:
    """A checkpoint in use: what it was made of, but for the flags that are given."""

    path: Path
    classifier: DigitClassifier
    data: MNISTDataModule
    trainer: Trainer
    output: str | None


def _restore(command: str, argv: Sequence[str]) -> Restored:
    parser = build_parser(command)
    config = parse(parser, argv)
    limit = f"limit_{'val' if command == 'validate' else command}_batches"
    if config.trainer[limit] == 0:
        raise UsageError(f"--trainer.{limit}: 0 leaves nothing to {command}")
    path = find_checkpoint(config.ckpt_path, config.experiment)
    content = read_checkpoint(path)
    take_defaults(parser, settings_of(content), path)
    seed_everything(config.seed, verbose=False)
    settings = instantiate(parser, parse(parser, argv))
    load_weights(settings.model, content, path)
    print(f"checkpoint {path}")
    return Restored(path, settings.model, settings.data, build_trainer(settings.trainer), settings.get("output"))


def _opening(run: Run, seed: int, trainer: Trainer, classifier: DigitClassifier, data: MNISTDataModule) -> str:
    """Tell what is about to be trained, and the way a digit takes through it."""
    shapes = " → ".join(str(shape) if len(shape) > 1 else str(shape[0]) for shape in classifier.network.shapes())
    parameters = sum(parameter.numel() for parameter in classifier.network.parameters())
    return (
        f"run      {run.folder}, seed {seed}, {trainer.accelerator.name()}\n"
        f"data     {data.dataset.name}: {TRAIN_IMAGES - data.val_size:,} images to train on, "
        f"{data.val_size:,} to validate\n"
        f"network  {parameters:,} parameters: {shapes}\n"
    )


def _report_test(trainer: Trainer, classifier: DigitClassifier, data: MNISTDataModule, path: Path) -> None:
    """Print the test's result, and record it in the run that the checkpoint lies in if it is the run's own result."""
    if "test/loss" not in trainer.callback_metrics:
        print("not tested: the limit of test batches is 0")
        return
    result = evaluation(classifier.confusion.compute(), float(trainer.callback_metrics["test/loss"]))
    print(evaluation_line("test", result))
    if (run := run_of(path)) is None:
        return
    trained_on = settings_of(read_checkpoint(path))["data"]["dataset"]
    if path.name != "best.ckpt":
        print(f"not recorded in {run.folder}: its result is that of best.ckpt")
    elif (result["total"], data.dataset.name) != (TEST_IMAGES, trained_on):
        print(f"not recorded in {run.folder}: its result is that of all {TEST_IMAGES:,} images of {trained_on}")
    else:
        run.record(test=result | {"checkpoint": f"{run.checkpoints.name}/{path.name}"})
