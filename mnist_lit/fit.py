"""Train: a new run, or one that goes on where it was interrupted."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import Timer

from mnist_lit.board import Board, write_text
from mnist_lit.checkpoints import load_weights, read_checkpoint
from mnist_lit.classifier import DigitClassifier
from mnist_lit.data import TRAIN_IMAGES, MNISTDataModule
from mnist_lit.evaluate import report_test
from mnist_lit.files import write_atomically
from mnist_lit.guards import FiniteLoss, KeepBest, KeepLast, SeedSteps
from mnist_lit.mirrors import without_password
from mnist_lit.processes import part, process_rank, rank_zero_only, say
from mnist_lit.results import fit_lines, training
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
        train(parser, start)


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
    settings.data.prepare_data()  # before there is a run folder: no data, no run

    if process_rank() > 0:  # one more process of a run that the first process has made and writes
        run = start.run or Run(ROOT)
        _train(run, parser, start, settings, callbacks, tested=tested)
        return run
    run = start.run or new_run(start.config.experiment)
    with run.lock():
        _train(run, parser, start, settings, callbacks, tested=tested)
    return run


def _train(
    run: Run, parser: ArgumentParser, start: Start, settings: Namespace, added: Sequence[Callback], *, tested: bool
) -> None:
    config, classifier, data = start.config, settings.model, settings.data
    if data.val_size == 0:
        settings.trainer.limit_val_batches = 0  # or Lightning would wonder at an empty loader
    stop, timer = StopRequest(), Timer()
    best = KeepBest(run, validated=settings.trainer.limit_val_batches != 0)
    compared = {"seed": config.seed, "max_epochs": config.trainer.max_epochs, **classifier.hparams, **data.hparams}
    board = Board(data.dataset.classes, compared, run.config)
    callbacks = [
        timer,
        FiniteLoss(),
        SeedSteps(config.seed),
        board,
        best,
        KeepLast(run, config.save_every, stop),
        *added,
    ]
    step = start.content["global_step"] if start.content else 0
    try:
        trainer = build_trainer(
            settings.trainer,
            run,
            callbacks,
            resumed_at=step if start.run else None,
            rate_changes="epoch" if classifier.schedule == "constant" else "step",
        )
        _check_batches(data.batch_size, trainer.world_size)
    except BaseException:
        if start.run is None and process_rank() == 0:  # other processes have made no run
            run.remove()
        raise
    _open(run, parser, start)
    say(_opening(run, config.seed, trainer, classifier, data))
    try:
        with handle_signals(stop.note):
            trainer.fit(classifier, data, ckpt_path=start.path, weights_only=True)
    except Stopped as stopped:
        part()
        last = run.checkpoints / "last.ckpt"
        hint = f": to go on, python {sys.argv[0]} fit --ckpt_path {last if last.is_file() else 'last'}"
        raise Stopped(stopped.exit_code - 128, hint) from None
    path = Path(best.best_model_path)
    selected = read_checkpoint(path) if path.is_file() else None
    fitted = training(
        epochs=trainer.current_epoch,
        seconds=timer.time_elapsed("train"),
        images=(trainer.fit_loop.total_batch_idx + 1) * data.batch_size,
        best_epoch=selected["epoch"] + 1 if selected else None,
        best_val_accuracy=None if best.best_model_score is None else float(best.best_model_score),
    )
    summary = fit_lines(fitted)
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
