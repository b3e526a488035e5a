"""Train: a new run, or one that goes on where it was interrupted."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything

from mnist_lit.board import Board, write_text
from mnist_lit.callbacks import EpochLines
from mnist_lit.checkpoints import initialize_weights, load_weights, read_checkpoint, settings_of
from mnist_lit.classifier import DigitClassifier
from mnist_lit.data import TRAIN_IMAGES, MNISTDataModule
from mnist_lit.evaluate import other_split, report_test
from mnist_lit.files import write_atomically
from mnist_lit.guards import Diverged, FiniteLoss, KeepBest, KeepLast, Limits, SeedSteps
from mnist_lit.mirrors import without_password
from mnist_lit.processes import part, process_rank, rank_zero_only, say
from mnist_lit.results import evaluation, evaluation_line, fit_lines, training
from mnist_lit.runs import ROOT, Run, new_run
from mnist_lit.settings import build_parser, instantiate
from mnist_lit.signals import Stopped, StopRequest, handle_signals
from mnist_lit.start import Start, find_start
from mnist_lit.trainer import build_trainer
from mnist_lit.usage import UsageError

__all__ = ["fit", "train"]


def fit(argv: Sequence[str]) -> None:
    """Train, keep the best checkpoint by validation accuracy and the last, then test the best one, once."""
    parser = build_parser("fit")
    if start := find_start(parser, argv):
        (_try if start.config.trainer.fast_dev_run else train)(parser, start)


def train(parser: ArgumentParser, start: Start, callbacks: Sequence[Callback] = (), *, tested: bool = True) -> Run:
    """Train from where `start` says, and return the run.

    Args:
        parser: of `fit`.
        start: what to train, and from where.
        callbacks: besides those of every run.
        tested: whether the best checkpoint is tested; else the test set is not even read.
    """
    seed_everything(start.config.seed, verbose=False)
    settings = instantiate(parser, start.config)
    if start.path and start.content:
        load_weights(settings.model, start.content, start.path)  # another network is refused before anything is written
    elif start.weights:
        initialize(settings, start.weights, Path(start.config.init_from))
    settings.data.prepare_data()  # before there is a run folder: no data, no run

    if process_rank() > 0:  # one more process of a run that the first process has made and writes
        run = start.run or Run(ROOT)
        _train(run, parser, start, settings, callbacks, tested=tested)
        return run
    run = start.run or new_run(start.config.experiment)
    try:
        with run.lock():
            _train(run, parser, start, settings, callbacks, tested=tested)
    except BaseException as error:
        begun = run.config.is_file()
        failed = isinstance(error, Diverged) or (begun and not tested and isinstance(error, Exception))
        kept = start.run or failed or run.checkpoints.is_dir() or (begun and isinstance(error, Stopped))
        if not kept:  # it failed before there was anything to resume
            run.remove()
        elif failed:
            run.fail(str(error))
        raise
    return run


def _train(
    run: Run, parser: ArgumentParser, start: Start, settings: Namespace, added: Sequence[Callback], *, tested: bool
) -> None:
    config, classifier, data = start.config, settings.model, settings.data
    if data.val_size == 0:
        settings.trainer.limit_val_batches = 0  # or Lightning would wonder at an empty loader
    stop, limits = StopRequest(), _limits(settings.trainer)
    best, last = (
        KeepBest(run, validated=settings.trainer.limit_val_batches != 0),
        KeepLast(run, config.save_every, stop),
    )
    compared = {"seed": config.seed, "max_epochs": config.trainer.max_epochs, **classifier.hparams, **data.hparams}
    board = Board(data.dataset.classes, compared, run.config)
    callbacks = [
        limits,
        FiniteLoss(),
        SeedSteps(config.seed),
        board,
        best,
        last,
        *added,
    ]
    step = start.content["global_step"] if start.content else 0
    trainer = build_trainer(
        settings.trainer,
        run,
        callbacks,
        resumed_at=step if start.run else None,
        rate_changes="epoch" if classifier.schedule == "constant" else "step",
    )
    _check_batches(data.batch_size, trainer.world_size)
    _open(run, parser, start)
    say(_opening(str(run.folder), config.seed, trainer, classifier, data))
    try:
        with handle_signals(stop.note):
            trainer.fit(classifier, data, ckpt_path=start.path, weights_only=True)
        last.stop_if_asked(trainer)  # by a signal since the last save
    except Stopped as stopped:
        part()
        hint = f": to go on, python {sys.argv[0]} fit --ckpt_path {last.path if last.path.is_file() else 'last'}"
        raise Stopped(stopped.exit_code - 128, hint) from None
    path = Path(best.dirpath or "", "best.ckpt")  # which all processes know: only the first one has the run
    selected = read_checkpoint(path) if path.is_file() else None
    batches = trainer.fit_loop.total_batch_idx + 1
    fitted = training(
        epochs=trainer.current_epoch,
        seconds=limits.seconds,
        images=batches * data.batch_size,
        best_epoch=selected["epoch"] + 1 if selected else None,
        best_val_accuracy=None if best.best_model_score is None else float(best.best_model_score),
    )
    summary = fit_lines(fitted, int(batches % trainer.num_training_batches))
    say(f"\n{summary}")
    if selected and tested:
        load_weights(classifier, selected, path)
        trainer.test(classifier, data, verbose=False)
        summary += f"\n{report_test(trainer, classifier, data, path)}"
        program = f"python {sys.argv[0]}"
        say(f"\nnext:  tensorboard --logdir {ROOT}\n       {program} test\n       {program} predict --images PHOTO.jpg")
    write_text(trainer, "summary", summary.replace("\n", "\n\n"))
    for logger in trainer.loggers:  # which the summary has opened anew
        logger.finalize("success")
    if trainer.is_global_zero:  # last, so that a run that is killed while it is tested is not taken for a finished one
        run.record(fit=fitted)
    part()


def initialize(settings: Namespace, content: dict[str, Any], path: Path) -> None:
    """Start from a checkpoint's weights, name the layers that start anew, and say if validation has seen images."""
    anew = initialize_weights(settings.model, content, path)
    say(f"weights from {path}" + (f"; these start anew, their shapes differ: {', '.join(anew)}" if anew else ""))
    trained = settings_of(content)["data"]
    validated = settings.data.val_size and settings.trainer.limit_val_batches != 0
    if validated and (changed := other_split(trained, settings.data)):
        flags = ", ".join(f"--data.{name}={trained[name]}" for name in changed)
        say(f"validation has images that {path} was trained on, and reads them too well: it had {flags}")


def _limits(settings: Namespace) -> Limits:
    """Take `max_time` out of the Trainer's settings: its own timer would stop within an accumulated step."""
    max_time = settings.pop("max_time")
    if max_time is not None and settings.max_epochs is None:
        settings.max_epochs = -1  # or Lightning would stop after 1,000
    try:
        return Limits(max_time)
    except (MisconfigurationException, TypeError) as error:
        raise UsageError(f"--trainer.max_time: {error}") from error


def _try(parser: ArgumentParser, start: Start) -> None:
    """Take a few batches of training, validation and test, and keep nothing (the Trainer's `fast_dev_run`)."""
    config = start.config
    seed_everything(config.seed, verbose=False)
    settings = instantiate(parser, config)
    classifier, data = settings.model, settings.data
    if start.weights:
        initialize(settings, start.weights, Path(config.init_from))
    data.prepare_data()
    trainer = build_trainer(settings.trainer, callbacks=[FiniteLoss(), SeedSteps(config.seed), EpochLines()])
    _check_batches(data.batch_size, trainer.world_size)
    say(_opening("a trial run that leaves nothing", config.seed, trainer, classifier, data))
    trainer.fit(classifier, data)
    trainer.test(classifier, data, verbose=False)
    result = evaluation(classifier.confusion.compute(), float(trainer.callback_metrics["test/loss"]))
    say(f"\n{evaluation_line('test', result)}")
    number = int(config.trainer.fast_dev_run)
    say(f"a trial run of {number} batch{'es' * (number > 1)} of training, validation and test: nothing is recorded")
    part()


def _check_batches(batch_size: int, processes: int) -> None:
    if batch_size % processes:
        raise UsageError(f"--data.batch_size: {batch_size} cannot be divided among {processes} processes")


@rank_zero_only
def _open(run: Run, parser: ArgumentParser, start: Start) -> None:
    """Write everything that is needed to repeat the run, and clear away what a former start of it has left."""
    config = start.config.clone()
    config.ckpt_path = None
    if config.data.mirrors:
        config.data.mirrors = [without_password(mirror) for mirror in config.data.mirrors]
    write_atomically(run.config, parser.dump(config, skip_unset=False).encode())
    run.clear()
    if start.path and start.path.name != "last.ckpt":  # what was trained after it is given up
        write_atomically(run.checkpoints / "last.ckpt", start.path.read_bytes())


def _opening(run: str, seed: int, trainer: Trainer, classifier: DigitClassifier, data: MNISTDataModule) -> str:
    """Tell what is about to be trained, and the way a digit takes through it."""
    shapes = " → ".join(str(shape) if len(shape) > 1 else str(shape[0]) for shape in classifier.network.shapes())
    parameters = sum(parameter.numel() for parameter in classifier.network.parameters())
    return (
        f"run      {run}, seed {seed}, {trainer.accelerator.name()}\n"
        f"data     {data.dataset.name}: {TRAIN_IMAGES - data.val_size:,} images to train on, "
        f"{data.val_size:,} to validate\n"
        f"network  {parameters:,} parameters: {shapes}\n"
    )
