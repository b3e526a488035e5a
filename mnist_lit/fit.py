"""Train: a new run, or one that goes on where it was interrupted."""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Timer

from mnist_lit.checkpoints import load_weights, open_checkpoint, read_checkpoint
from mnist_lit.classifier import DigitClassifier
from mnist_lit.data import TRAIN_IMAGES, MNISTDataModule
from mnist_lit.evaluate import report_test
from mnist_lit.files import write_atomically
from mnist_lit.guards import FiniteLoss, KeepBest, KeepLast, SeedSteps
from mnist_lit.mirrors import without_password
from mnist_lit.results import fit_lines, training
from mnist_lit.runs import ROOT, Run, find_interrupted, new_run
from mnist_lit.settings import build_parser, instantiate, parse
from mnist_lit.signals import Stopped, StopRequest, handle_signals
from mnist_lit.trainer import build_trainer

__all__ = ["fit"]


@dataclass(frozen=True)
class Start:
    """Where training starts: at the beginning of a new run or, with `run`, in the middle of an old one."""

    config: Namespace
    run: Run | None = None
    path: Path | None = None
    """The checkpoint to go on from; none if the run was interrupted before it had saved one."""
    content: dict[str, Any] | None = None


def fit(argv: Sequence[str]) -> None:
    """Train, keep the best checkpoint by validation accuracy and the last, then test the best one, once."""
    parser = build_parser("fit")
    start = _start(parser, argv)
    if start is None:
        return
    seed_everything(start.config.seed, verbose=False)
    settings = instantiate(parser, start.config)
    if start.path and start.content:
        load_weights(settings.model, start.content, start.path)  # another network is refused before anything is written
    settings.data.prepare_data()  # before there is a run folder: no data, no run

    run = start.run or new_run(start.config.experiment)
    with run.lock():
        _train(run, parser, start, settings)


def _start(parser: ArgumentParser, argv: Sequence[str]) -> Start | None:
    """Return where to start, or None (and say so) where everything is done."""
    config = parse(parser, argv)
    if config.ckpt_path is None:
        return Start(config)
    parser.set_defaults({"experiment": None})  # the runs of all experiments, unless one is named
    run, path = find_interrupted(config.ckpt_path, parse(parser, argv).experiment)
    saved, config = (parse(parser, [f"--config={run.config}", *flags]) for flags in ((), argv))
    limits = ("max_epochs", "max_steps", "max_time")
    if "fit" in run.results() and all(config.trainer[limit] == saved.trainer[limit] for limit in limits):
        print(f"{run.folder} is finished: give more --trainer.max_epochs to train it longer")
        return None
    if path is None:
        print(f"{run.folder} was interrupted before its first checkpoint: it starts again")
        return Start(config, run)
    path, content = open_checkpoint(path)
    print(f"resuming {path}")
    return Start(config, run, path, content)


def _train(run: Run, parser: ArgumentParser, start: Start, settings: Namespace) -> None:
    config, classifier, data = start.config, settings.model, settings.data
    if data.val_size == 0:
        settings.trainer.limit_val_batches = 0  # or Lightning would wonder at an empty loader
    stop, timer = StopRequest(), Timer()
    best = KeepBest(run, validated=settings.trainer.limit_val_batches != 0)
    callbacks = [FiniteLoss(), SeedSteps(config.seed), best, KeepLast(run, config.save_every, stop), timer]
    step = start.content["global_step"] if start.content else 0
    try:
        trainer = build_trainer(settings.trainer, run, callbacks, resumed_at=step if start.run else None)
        _save_config(run, parser, config)
    except BaseException:
        if start.run is None:
            shutil.rmtree(run.folder)  # nothing has been trained yet
            with suppress(OSError):  # other runs are there
                os.removedirs(run.folder.parent)
        raise
    run.clear()
    last = run.checkpoints / "last.ckpt"
    if start.path and start.path.name != last.name:
        write_atomically(last, start.path.read_bytes())  # what was trained after it is given up
    print(_opening(run, config.seed, trainer, classifier, data))
    try:
        with handle_signals(stop.note):
            trainer.fit(classifier, data, ckpt_path=start.path, weights_only=True)
    except Stopped as stopped:
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
    run.record(fit=fitted)
    print(f"\n{fit_lines(fitted)}")
    if selected:
        load_weights(classifier, selected, path)
        trainer.test(classifier, data, verbose=False)
        report_test(trainer, classifier, data, path)
        program = f"python {sys.argv[0]}"
        print(f"\nnext:  tensorboard --logdir {ROOT}\n       {program} test\n       {program} predict")


def _save_config(run: Run, parser: ArgumentParser, config: Namespace) -> None:
    """Write everything that is needed to repeat the run."""
    saved = config.clone()
    saved.ckpt_path = None
    if saved.data.mirrors:
        saved.data.mirrors = [without_password(mirror) for mirror in saved.data.mirrors]
    write_atomically(run.config, parser.dump(saved, skip_unset=False).encode())


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
