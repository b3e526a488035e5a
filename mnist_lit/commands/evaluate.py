"""Validate or test a checkpoint."""

from collections.abc import Sequence

from lightning.pytorch import Trainer

from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands.restore import restore
from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.sampling import changed_split
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.results import evaluation_results, format_calibration, format_evaluation
from mnist_lit.system.distributed import rank_zero_only
from mnist_lit.system.errors import UsageError

__all__ = ["report_test", "test", "validate"]


def validate(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on its validation set."""
    restored = restore("validate", argv)
    checkpoint, data, classifier = restored.checkpoint, restored.data, restored.classifier
    if checkpoint.was_trained_on(data.dataset):
        trained = checkpoint.settings["data"]
        for name in changed_split(trained, data.hparams):
            raise UsageError(f"--data.{name}: leave it at {trained[name]}, or images would be among those trained on")
    restored.check_validation_set()
    if not data.val_size:
        size = data.dataset.train_size
        raise ValueError(f"{checkpoint.path} was trained on all {size:,} images: there is no validation set")
    restored.trainer.validate(classifier, data, verbose=False)
    loss = float(restored.trainer.callback_metrics["val/loss"])
    print(format_evaluation("validation", evaluation_results(classifier.confusion.compute(), loss)))


def test(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on the test set, and record the result in the run that the checkpoint is in."""
    restored = restore("test", argv)
    restored.check_test_set()
    restored.trainer.test(restored.classifier, restored.data, verbose=False)
    report_test(restored.trainer, restored.classifier, restored.data, restored.checkpoint)


@rank_zero_only
def report_test(
    trainer: Trainer,
    classifier: DigitClassifier,
    data: MNISTDataModule,
    checkpoint: Checkpoint,
    *,
    fitted: bool = False,
) -> str:
    """Print and return the result of a test, and record it in the checkpoint's run if it is the run's own.

    Args:
        trainer: that has tested.
        classifier: that was tested.
        data: with the test set.
        checkpoint: of the classifier.
        fitted: whether it was trained on the same data just now.
    """
    if "test/loss" not in trainer.callback_metrics:
        print(untested := "not tested: the limit of test batches is 0")
        return untested
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    results = evaluation_results(classifier.confusion.compute(), logged["test/loss"])
    errors = logged["test/calibration_error_before"], logged["test/calibration_error"]
    line = f"{format_evaluation('test', results)}\n{format_calibration(float(classifier.temperature), *errors)}"
    print(line)
    if (run := checkpoint.run) is None:
        return line
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
    return line
