"""Validate or test a checkpoint."""

from collections.abc import Sequence

from lightning.pytorch import Trainer

from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands.restore import Restored, restore
from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.folder import FolderDataset
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
    trained = checkpoint.settings["data"]
    _check_unchanged(restored)
    for name in changed_split(trained, data.hparams):
        raise UsageError(f"--data.{name}: leave it at {trained[name]}, or images would be among those trained on")
    if not data.val_size:
        size = data.dataset.train_size
        raise ValueError(f"{checkpoint.path} was trained on all {size:,} images: there is no validation set")
    restored.trainer.validate(classifier, data, verbose=False)
    loss = float(restored.trainer.callback_metrics["val/loss"])
    print(format_evaluation("validation", evaluation_results(classifier.confusion.compute(), loss)))


def test(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on the test set, and record the result in the run that the checkpoint is in."""
    restored = restore("test", argv)
    if isinstance(restored.data.dataset, FolderDataset) and restored.data.dataset.held_out:
        _check_unchanged(restored)
    restored.trainer.test(restored.classifier, restored.data, verbose=False)
    report_test(restored.trainer, restored.classifier, restored.data, restored.checkpoint)


def _check_unchanged(restored: Restored) -> None:
    """Raise ValueError if images held out of a folder may be others than those held out of the training."""
    checkpoint, data = restored.checkpoint, restored.data
    same_set = checkpoint.settings["data"]["dataset"] == data.dataset.name
    if same_set and checkpoint.digest != data.dataset.digest:
        raise ValueError(
            f"the images in {data.dataset.name} have changed since {checkpoint.path} was trained: those held out would "
            "be among those trained on. Give another folder with --data.dataset, or train again"
        )


@rank_zero_only
def report_test(trainer: Trainer, classifier: DigitClassifier, data: MNISTDataModule, checkpoint: Checkpoint) -> str:
    """Print and return the result of a test, and record it in the checkpoint's run if it is the run's own."""
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
    elif (data.dataset.name, data.dataset.digest) != (dataset, checkpoint.digest):
        print(f"not recorded in {run.folder}: its result is that of {dataset} as it was in training")
    elif results["total"] != (size := data.dataset.test_size):
        print(f"not recorded in {run.folder}: its result is that of all {size:,} images of {dataset}")
    elif trainer.precision != checkpoint.precision:
        print(f"not recorded in {run.folder}: its result is that of precision {checkpoint.precision}")
    else:
        run.record(test=results | {"checkpoint": f"{run.checkpoints.name}/{checkpoint.path.name}"})
    return line
