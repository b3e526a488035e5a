"""Validate or test a checkpoint."""

from collections.abc import Sequence
from typing import Any

from mnist_lit.commands.restore import Restored, restore
from mnist_lit.datasets.sampling import changed_split
from mnist_lit.runs.results import evaluation_results, format_evaluation
from mnist_lit.system.errors import UsageError
from mnist_lit.training.evaluation import Outputs, other_metrics, report_test

__all__ = ["test", "validate"]


def validate(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on its validation set.

    Raises:
        UsageError: if a flag is wrong, or would put training images into the validation set.
        ValueError: if there is no validation set.
    """
    restored, outputs = restore("validate", argv), Outputs()
    checkpoint, data = restored.checkpoint, restored.data
    trained = checkpoint.settings["data"]
    if checkpoint.was_trained_on(data.dataset):
        for name in changed_split(trained, data.hparams):
            raise UsageError(f"--data.{name}: leave it at {trained[name]}, or images would be among those trained on")
    if not data.val_size:
        size = data.dataset.train_size
        raise ValueError(f"{checkpoint.path} was trained on all {size:,} images: there is no validation set")
    trainer = restored.build_trainer(outputs)
    trainer.validate(restored.classifier, data, verbose=False)
    loss = float(trainer.callback_metrics["val/loss"])
    print(format_evaluation("validation", evaluation_results(outputs.confusion(), loss)))
    for name, value in other_metrics(trainer, "val").items():
        print(f"val/{name} {value:.4f}")


def test(argv: Sequence[str]) -> None:
    """Evaluate a checkpoint on the test set, and record the result in the run that the checkpoint is in."""
    restored, outputs = restore("test", argv), Outputs()
    data, trainer = restored.data, restored.build_trainer(outputs)
    trainer.test(restored.classifier, data, verbose=False)
    results, lines = report_test(trainer, restored.classifier, data.dataset.classes, outputs)
    print("\n".join(lines))
    _record(restored, results, trainer.precision)


def _record(restored: Restored, results: dict[str, Any], precision: str) -> None:
    """Record the results in the checkpoint's run, or print why they are not the run's own."""
    checkpoint, dataset = restored.checkpoint, restored.data.dataset
    if not (run := checkpoint.run):
        return
    if checkpoint.path.name != "best.ckpt":
        reason = "best.ckpt"
    elif not checkpoint.was_trained_on(dataset):
        reason = str(checkpoint.settings["data"]["dataset"])
    elif results["total"] != dataset.test_size:
        reason = f"all {dataset.test_size:,} images of {dataset.name}"
    elif precision != checkpoint.precision:
        reason = f"precision {checkpoint.precision}"
    else:
        run.record(test=results)
        return
    print(f"not recorded in {run.folder}: its result is that of {reason}")
