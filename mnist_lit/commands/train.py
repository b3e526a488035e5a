"""Train a network: prepare, build, fit, test the best checkpoint, record the results."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only

from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands.evaluate import report_test
from mnist_lit.commands.resume import Start
from mnist_lit.commands.settings import FROM_DATASET, instantiate
from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.catalog import DATASETS, ImageDataset
from mnist_lit.datasets.mirrors import redact_credentials
from mnist_lit.datasets.sampling import changed_split
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import ROOT, Run, new_run
from mnist_lit.runs.results import evaluation_results, fit_results, format_evaluation, format_fit
from mnist_lit.system.distributed import process_rank, rank_zero_print, shutdown_process_group
from mnist_lit.system.errors import UsageError, printable
from mnist_lit.system.files import write_atomically
from mnist_lit.system.program import PROGRAM
from mnist_lit.system.signals import Stopped, StopRequest, handle_signals
from mnist_lit.training.callbacks import DivergedError, FiniteLoss, Limits, SeedSteps
from mnist_lit.training.checkpointing import KeepBest, KeepLast
from mnist_lit.training.inspection import count_parameters, layer_shapes
from mnist_lit.training.tensorboard import TensorBoardCallback, write_text
from mnist_lit.training.trainer import build_trainer

__all__ = ["train", "try_out"]

MAX_LISTED = 20  # names of classes


@dataclass(frozen=True)
class Training:
    """A run with all that takes part in its training."""

    run: Run
    start: Start
    classifier: DigitClassifier
    data: MNISTDataModule
    trainer: Trainer
    limits: Limits
    best: KeepBest
    last: KeepLast


def train(
    start: Start,
    callbacks: Sequence[Callback] = (),
    *,
    tested: bool = True,
    opened: Callable[[Run], None] | None = None,
) -> Run:
    """Train from `start` on: keep the best and the last checkpoint, test the best one, once, and return the run.

    Args:
        start: what to train, and from where.
        callbacks: besides those of every run.
        tested: whether to test the best checkpoint; otherwise the test set is not even read.
        opened: called with the run as soon as its folder is there.
    """
    settings = _prepare(start)
    with _open_run(start, keep_failed=not tested) as run:
        if opened:
            opened(run)
        training = _build(run, start, settings, callbacks)
        _write_config(training)
        rank_zero_print(_header(str(run.folder), start, training.trainer, settings))
        _fit(training)
        best = Checkpoint.read(training.best.path) if training.best.path.is_file() else None
        results, summary = _summarize(training, best)
        if best and tested:
            summary += f"\n{_test(training, best)}"
        _record(training, results, summary)
    return run


def _prepare(start: Start) -> Namespace:
    """Return the model with its initial weights, the data, and the Trainer's settings, before there is a run folder."""
    seed_everything(start.config.seed, verbose=False)
    settings = instantiate(start.parser, start.config)
    if start.resumed:
        if start.resumed.has_other_images(dataset := settings.data.dataset, "train"):
            raise ValueError(f"the images in {dataset.name} have changed since the run began: start a new run")
        start.resumed.load_into(settings.model)  # refuses another network
    elif start.initial:
        _initialize(settings, start.initial)
    settings.data.prepare_data()
    return settings


def _initialize(settings: Namespace, initial: Checkpoint) -> None:
    """Load the weights of `--init_from`, and print which are not loaded and whether validation has seen images."""
    kept = initial.initialize(settings.model)
    others = f"; these start anew, not in it or of another shape: {', '.join(kept)}" if kept else ""
    rank_zero_print(f"weights from {initial.path}{others}")
    data, trained = settings.data, initial.settings["data"]
    data.trained_on = initial.trained_on
    if hashes := data.dataset.hashes:
        data.setup("validate")
        train, val = (hashes[0][part.indices] for part in (data.train_set, data.val_set))
        for name, images in (("validation", val), ("test", hashes[1])):
            if number := initial.count_trained_on(images, train):
                rank_zero_print(
                    f"{initial.path} was trained on {number:,} of the {len(images):,} {name} images, "
                    "which raises their accuracy"
                )
        return
    validated = data.val_size and settings.trainer.limit_val_batches != 0
    if validated and initial.was_trained_on(data.dataset) and (changed := changed_split(trained, data.hparams)):
        flags = ", ".join(f"--data.{name}={trained[name]}" for name in changed)
        rank_zero_print(
            f"validation has images that {initial.path} was trained on, which raises its accuracy: it had {flags}"
        )


@contextmanager
def _open_run(start: Start, *, keep_failed: bool) -> Iterator[Run]:
    """Make the run's folder and lock it; remove it after an error that leaves nothing to resume.

    Args:
        start: of the training.
        keep_failed: whether to keep a run that failed in its training without a checkpoint.
    """
    if process_rank() > 0:  # the first process makes the folder and writes into it
        yield start.run or Run(ROOT)
        return
    run = start.run or new_run(start.config.experiment)
    try:
        with run.lock():
            yield run
    except BaseException as error:
        begun = run.config.is_file()
        failed = isinstance(error, DivergedError) or (begun and keep_failed and isinstance(error, Exception))
        if failed:
            run.fail(str(error))
        elif not (start.run or run.checkpoints.is_dir() or (begun and isinstance(error, Stopped))):
            run.remove()
        raise


def _build(run: Run, start: Start, settings: Namespace, callbacks: Sequence[Callback]) -> Training:
    config, classifier, data = start.config, settings.model, settings.data
    if data.val_size == 0:
        settings.trainer.limit_val_batches = 0  # Lightning would warn of an empty loader
    limits = _limits(settings.trainer)
    validated = settings.trainer.limit_val_batches != 0
    best = KeepBest(run, validated=validated, last_epoch=config.select == "last_epoch")
    last = KeepLast(run, config.save_every, StopRequest())
    network = {name: value for name, value in classifier.hparams.items() if name not in FROM_DATASET}
    compared = {"seed": config.seed, "max_epochs": config.trainer.max_epochs, **network, **data.hparams}
    tensorboard = TensorBoardCallback(data.dataset.classes, compared, run.config)
    trainer = build_trainer(
        settings.trainer,
        run,
        [limits, FiniteLoss(), SeedSteps(config.seed), tensorboard, best, last, *callbacks],
        resumed=start.resumed,
        purge_step=(start.resumed.content["global_step"] if start.resumed else 0) if start.run else None,
        rate_changes="epoch" if classifier.schedule == "constant" else "step",
    )
    _check_batch_size(data, trainer)
    return Training(run, start, classifier, data, trainer, limits, best, last)


def _limits(settings: Namespace) -> Limits:
    """Move `max_time` from the Trainer's settings to `Limits`: Lightning's own timer would stop within a step."""
    max_time = settings.pop("max_time")
    if max_time is not None and settings.max_epochs is None:
        settings.max_epochs = -1  # Lightning's default is 1,000
    try:
        return Limits(max_time)
    except (MisconfigurationException, TypeError) as error:
        raise UsageError(f"--trainer.max_time: {error}") from error


def _check_batch_size(data: MNISTDataModule, trainer: Trainer) -> None:
    if data.batch_size > (most := data.dataset.train_size - data.val_size):
        raise UsageError(f"--data.batch_size: {data.batch_size} is more than the {most:,} images to train on")
    if data.batch_size % trainer.world_size:
        raise UsageError(f"--data.batch_size: {data.batch_size} cannot be divided among {trainer.world_size} processes")


@rank_zero_only
def _write_config(training: Training) -> None:
    """Write the settings that repeat the run, and remove what an earlier training of it has left."""
    run, start = training.run, training.start
    config = start.config.clone()
    config.ckpt_path, config.data.val_size = None, training.data.val_size  # which may depend on the data
    if config.data.mirrors:
        config.data.mirrors = [redact_credentials(mirror) for mirror in config.data.mirrors]
    write_atomically(run.config, start.parser.dump(config, skip_unset=False).encode())
    run.clear()
    if start.resumed and start.resumed.path != training.last.path:  # discards what was trained after it
        write_atomically(training.last.path, start.resumed.path.read_bytes())


def _header(run: str, start: Start, trainer: Trainer, settings: Namespace) -> str:
    """Return lines about the run, the data and the network."""
    data, network = settings.data, settings.model.network
    shapes = " → ".join(str(s) if len(s) > 1 else str(s[0]) for s in layer_shapes(network, data.dataset.shape))
    return (
        f"run      {run}, seed {start.config.seed}, {trainer.accelerator.name()}\n"
        f"data     {data.dataset.name}: {data.dataset.train_size - data.val_size:,} images to train on, "
        f"{data.val_size:,} to validate, {data.dataset.test_size:,} to test\n"
        f"{_list_classes(data.dataset)}network  {count_parameters(network):,} parameters: {shapes}\n"
    )


def _list_classes(dataset: ImageDataset) -> str:
    """Return a line with the classes of a folder: those of the catalog are known."""
    if dataset.name in DATASETS:
        return ""
    more = f" and {len(dataset.classes) - MAX_LISTED} more" if len(dataset.classes) > MAX_LISTED else ""
    return f"classes  {printable(', '.join(dataset.classes[:MAX_LISTED]))}{more}\n"


def _fit(training: Training) -> None:
    """Train until the end, or until a signal: then say how to resume."""
    trainer, last, resumed = training.trainer, training.last, training.start.resumed
    try:
        with handle_signals(last.stop.handle):
            trainer.fit(
                training.classifier, training.data, ckpt_path=resumed.path if resumed else None, weights_only=True
            )
        last.stop_if_asked(trainer)  # by a signal since the last save
    except Stopped as stopped:
        shutdown_process_group()
        which = last.path if last.path.is_file() else "last"
        raise Stopped(stopped.exit_code - 128, f": to resume, {PROGRAM} fit --ckpt_path {which}") from None


def _summarize(training: Training, best: Checkpoint | None) -> tuple[dict[str, Any], str]:
    """Return the results of the training, and print and return their summary."""
    trainer, score = training.trainer, training.best.best_model_score
    batches = trainer.fit_loop.total_batch_idx + 1
    results = fit_results(
        epochs=trainer.current_epoch,
        seconds=training.limits.seconds,
        images=batches * training.data.batch_size,
        best_epoch=best.content["epoch"] + 1 if best else None,
        best_val_accuracy=None if score is None else float(score),
    )
    summary = format_fit(results, int(batches % trainer.num_training_batches), last_epoch=training.best.last_epoch)
    rank_zero_print(f"\n{summary}")
    return results, summary


def _test(training: Training, best: Checkpoint) -> str:
    """Test the best checkpoint, and return its result."""
    best.load_into(training.classifier)
    training.trainer.test(training.classifier, training.data, verbose=False)
    return str(report_test(training.trainer, training.classifier, training.data, best, fitted=True))


def _record(training: Training, results: dict[str, Any], summary: str) -> None:
    """Write the summary and results. `results.json` comes last: a run that is killed before is not finished."""
    write_text(training.trainer, "summary", summary.replace("\n", "\n\n"))
    for logger in training.trainer.loggers:  # the summary has reopened them
        logger.finalize("success")
    if training.trainer.is_global_zero:
        training.run.record(fit=results)
    shutdown_process_group()


def try_out(start: Start) -> None:
    """Run a few batches of training, validation and test, and keep nothing (the Trainer's `fast_dev_run`)."""
    config, settings = start.config, _prepare(start)
    callbacks = [FiniteLoss(), SeedSteps(config.seed)]
    classifier, data, trainer = settings.model, settings.data, build_trainer(settings.trainer, callbacks=callbacks)
    _check_batch_size(data, trainer)
    rank_zero_print(_header("a trial run that leaves nothing", start, trainer, settings))
    trainer.fit(classifier, data)
    trainer.test(classifier, data, verbose=False)
    results = evaluation_results(classifier.confusion.compute(), float(trainer.callback_metrics["test/loss"]))
    number = int(config.trainer.fast_dev_run)
    rank_zero_print(
        f"\n{format_evaluation('test', results)}\n"
        f"a trial run of {number} batch{'es' * (number > 1)} of training, validation and test: nothing is recorded"
    )
    shutdown_process_group()
