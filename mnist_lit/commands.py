"""What each command does, from its flags to its results."""

import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from mnist_lit.checkpoints import load_weights, read_checkpoint, settings_of
from mnist_lit.classifier import DigitClassifier
from mnist_lit.data import TRAIN_IMAGES, MNISTDataModule
from mnist_lit.files import write_atomically
from mnist_lit.model import DIGITS
from mnist_lit.results import evaluation, evaluation_line, fit_lines
from mnist_lit.runs import ROOT, Run, find_checkpoint, new_run, run_of
from mnist_lit.settings import build_parser, instantiate, parse, take_defaults
from mnist_lit.trainer import best_checkpoint, build_trainer, last_checkpoint
from mnist_lit.usage import without_password

__all__ = ["fit", "predict", "test", "validate"]


def fit(argv: Sequence[str]) -> None:
    """Train, keep the best checkpoint by validation accuracy and the last, then test the best one, once."""
    parser = build_parser("fit")
    config = parse(parser, argv)
    seed_everything(config.seed, workers=True, verbose=False)
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
        write_atomically(run.config, without_password(parser.dump(config, skip_unset=False)).encode())
    except BaseException:
        os.removedirs(run.folder)  # nothing has been put into it yet
        raise
    print(_opening(run, config.seed, trainer, classifier, data))
    trainer.fit(classifier, data)

    path = Path(best.best_model_path)
    if not path.is_file():
        print("no checkpoint was selected, so none is tested")
        return
    content = read_checkpoint(path)
    seconds = timer.time_elapsed("train")
    results = {
        "epochs": trainer.current_epoch,
        "seconds": round(seconds, 1),
        "images_per_second": round(
            trainer.global_step * trainer.accumulate_grad_batches * data.batch_size / seconds, 1
        ),
        "best_epoch": content["epoch"] + 1,
        "best_val_accuracy": round(float(best.best_model_score), 6) if best.best_model_score is not None else None,
    }
    run.record(fit=results)
    load_weights(classifier, content, path)
    trainer.test(classifier, data, verbose=False)
    result = _record_test(trainer, classifier, path)
    program = f"python {sys.argv[0]}"
    print(
        f"\n{fit_lines(results)}\n{evaluation_line('test', result)}\n\n"
        f"next:  tensorboard --logdir {ROOT}\n       {program} test\n       {program} predict"
    )


def validate(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on its validation set."""
    trainer, classifier, data, path, _ = _restore("validate", argv)
    if not data.val_size:
        raise ValueError(f"{path} was trained on all {TRAIN_IMAGES:,} images: there is no validation set")
    trainer.validate(classifier, data, verbose=False)
    loss = float(trainer.callback_metrics["val/loss"])
    print(evaluation_line("validation", evaluation(classifier.confusion.compute(), loss)))


def test(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on the test set; the result goes to the run that the checkpoint lies in."""
    trainer, classifier, data, path, _ = _restore("test", argv)
    trainer.test(classifier, data, verbose=False)
    print(evaluation_line("test", _record_test(trainer, classifier, path)))


def predict(argv: Sequence[str]) -> None:
    """Write a CSV file with what a checkpoint reads in every test image."""
    trainer, classifier, data, path, output = _restore("predict", argv)
    probabilities = torch.cat(cast("list[Tensor]", trainer.predict(classifier, data)))  # (N, 10)
    run = run_of(path)
    target = Path(output or (run.folder if run else Path()) / "predictions.csv")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "digit", "probability", *(f"p{digit}" for digit in range(DIGITS))])
    for image, row in enumerate(probabilities):
        writer.writerow([image, int(row.argmax()), *(f"{float(p):.6f}" for p in (row.max(), *row))])
    write_atomically(target, table.getvalue().encode())
    print(f"{len(probabilities):,} test images read: {target}")


def _restore(command: str, argv: Sequence[str]) -> tuple[Trainer, DigitClassifier, MNISTDataModule, Path, str | None]:
    """Return what it takes to use a checkpoint: its own settings, but for the flags that are given."""
    parser = build_parser(command)
    config = parse(parser, argv)
    path = find_checkpoint(config.ckpt_path, config.experiment)
    content = read_checkpoint(path)
    take_defaults(parser, settings_of(content), path)
    settings = instantiate(parser, parse(parser, argv))
    load_weights(settings.model, content, path)
    print(f"checkpoint {path}")
    return build_trainer(settings.trainer), settings.model, settings.data, path, settings.get("output")


def _opening(run: Run, seed: int, trainer: Trainer, classifier: DigitClassifier, data: MNISTDataModule) -> str:
    """Tell what is about to be trained, and the way a digit takes through it."""
    shapes = " → ".join(str(shape) if len(shape) > 1 else str(*shape) for shape in classifier.network.shapes())
    parameters = sum(parameter.numel() for parameter in classifier.network.parameters())
    return (
        f"run      {run.folder}, seed {seed}, {trainer.accelerator.name()}\n"
        f"data     {data.dataset.name}: {TRAIN_IMAGES - data.val_size:,} images to train on, "
        f"{data.val_size:,} to validate\n"
        f"network  {parameters:,} parameters: {shapes}\n"
    )


def _record_test(trainer: Trainer, classifier: DigitClassifier, path: Path) -> dict[str, Any]:
    """Put the test's result into the run that the checkpoint lies in, unless another checkpoint's result is there."""
    result = evaluation(classifier.confusion.compute(), float(trainer.callback_metrics["test/loss"]))
    if run := run_of(path):
        result["checkpoint"] = f"{run.checkpoints.name}/{path.name}"
        if run.results().get("test", result)["checkpoint"] == result["checkpoint"]:
            run.record(test=result)
    return result
