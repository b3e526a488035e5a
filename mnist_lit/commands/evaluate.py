"""Validate or test a checkpoint."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands.restore import restore
from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.sampling import changed_split
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run
from mnist_lit.runs.results import evaluation_results, format_calibration, format_confused, format_evaluation
from mnist_lit.system.errors import UsageError

__all__ = ["report_test", "test", "validate"]


def validate(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on its validation set."""
    restored = restore("validate", argv)
    data, classifier = restored.data, restored.classifier
    for checkpoint in restored.checkpoints:
        _check_split(checkpoint, data)
    restored.check_validation_set()
    restored.trainer.validate(classifier, data, verbose=False)
    loss = float(restored.trainer.callback_metrics["val/loss"])
    print(format_evaluation("validation", evaluation_results(classifier.confusion.compute(), loss)))


def _check_split(checkpoint: Checkpoint, data: MNISTDataModule) -> None:
    """Raise an error if there are no validation images, or the checkpoint was trained on some of them."""
    trained = checkpoint.settings["data"]
    if checkpoint.was_trained_on(data.dataset):
        for name in changed_split(trained, data.hparams):
            raise UsageError(f"--data.{name}: leave it at {trained[name]}, or images would be among those trained on")
    if not data.val_size:
        size = data.dataset.train_size
        raise ValueError(f"{checkpoint.path} was trained on all {size:,} images: there is no validation set")


def test(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on the test set, and record the result in the run that the checkpoint is in.

    Of an ensemble, print the accuracy of each member too.
    """
    restored = restore("test", argv)
    restored.check_test_set()
    trainer, data = restored.trainer, restored.data
    for member in restored.members:
        trainer.test(member.classifier, data, verbose=False)
        print(f"{float(trainer.callback_metrics['test/accuracy']):.2%}  {member.checkpoint.path}")
    trainer.test(restored.classifier, data, verbose=False)
    report_test(trainer, restored.classifier, data, None if restored.members else restored.checkpoint)


@rank_zero_only
def report_test(
    trainer: Trainer,
    classifier: DigitClassifier,
    data: MNISTDataModule,
    checkpoint: Checkpoint | None,
    *,
    fitted: bool = False,
) -> str:
    """Print and return the result of a test, and record it in the checkpoint's run if it is the run's own.

    Args:
        trainer: that has tested.
        classifier: that was tested.
        data: with the test set.
        checkpoint: of the classifier, None for an ensemble.
        fitted: whether it was trained on the same data just now.
    """
    if "test/loss" not in trainer.callback_metrics:
        print(untested := "not tested: the limit of test batches is 0")
        return untested
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    confusion = classifier.confusion.compute()
    results = evaluation_results(confusion, logged["test/loss"])
    errors = logged["test/calibration_error_before"], logged["test/calibration_error"]
    temperature = float(classifier.temperature) if checkpoint else None
    lines = [format_evaluation("test", results), format_calibration(temperature, *errors)]
    line = "\n".join([*lines, *format_confused(confusion, data.dataset.classes)])
    print(line)
    if checkpoint and checkpoint.run:
        _record(checkpoint, checkpoint.run, trainer, data, results, fitted=fitted)
    return line


def _record(
    checkpoint: Checkpoint, run: Run, trainer: Trainer, data: MNISTDataModule, results: dict[str, Any], *, fitted: bool
) -> None:
    """Record the results in the checkpoint's run, or print why they are not the run's own."""
    dataset = checkpoint.settings["data"]["dataset"]
    if checkpoint.path.name != "best.ckpt":
        print(f"not recorded in {run.folder}: its result is that of best.ckpt")
    elif not checkpoint.was_trained_on(data.dataset):
        print(f"not recorded in {run.folder}: its result is that of {dataset}")
    elif (hashes := data.dataset.hashes) and (number := checkpoint.count_trained_on(hashes[1], hashes[0])):
        print(f"not recorded in {run.folder}: its network was trained on {number:,} of the test images before")
    elif not fitted and checkpoint.has_other_images(data.dataset, "test"):
        print(f"not recorded in {run.folder}: its result is that of the test images of that time")
    elif results["total"] != (size := data.dataset.test_size):
        print(f"not recorded in {run.folder}: its result is that of all {size:,} images of {dataset}")
    elif trainer.precision != checkpoint.precision:
        print(f"not recorded in {run.folder}: its result is that of precision {checkpoint.precision}")
    else:
        run.record(test=results | {"checkpoint": f"{run.checkpoints.name}/{checkpoint.path.name}"})
