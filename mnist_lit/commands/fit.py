"""Train a run: a new one, one that is resumed, or one for each of several seeds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor, distributed, nn

from mnist_lit.calibration import count_parameters
from mnist_lit.classifier import DigitClassifier
from mnist_lit.commands import has_room, require_room
from mnist_lit.commands.flags import (
    Parser,
    build_parser,
    find_flags,
    flat_settings,
    instantiate,
    parse,
    set_checkpoint_defaults,
)
from mnist_lit.data import MNISTDataModule
from mnist_lit.datasets.catalog import DATASETS, kind_of
from mnist_lit.datasets.sampling import changed_split
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import ROOT, Run, find_resumable, new_run
from mnist_lit.runs.results import format_fit
from mnist_lit.system.errors import UsageError
from mnist_lit.system.files import write_atomically
from mnist_lit.system.libraries import describe_load
from mnist_lit.system.output import say
from mnist_lit.system.program import PROGRAM, process_rank
from mnist_lit.system.signals import Stopped
from mnist_lit.system.yaml_loader import load
from mnist_lit.training.callbacks import DivergedError
from mnist_lit.training.evaluation import report_test
from mnist_lit.training.plots import save_pictures
from mnist_lit.training.tensorboard import write_summary
from mnist_lit.training.trainer import Training, build_trainer, build_training, early_end, fit_results

__all__ = [
    "LIMITS",
    "NOT_OF_THE_EXPERIMENT",
    "Start",
    "fit",
    "is_changeable",
    "layer_shapes",
    "new_start",
    "resume_run",
    "train",
]

LENGTH = ("trainer.max_epochs", "trainer.max_steps")
LIMITS = (*LENGTH, "trainer.max_time", "trainer.min_epochs", "trainer.min_steps")
CHANGEABLE = (
    *LIMITS,
    "data.data_dir",
    "data.mirrors",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.logger",
    "trainer.profiler",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)
"""Settings that may change when a run is resumed, since they do not change the experiment."""
NOT_OF_THE_EXPERIMENT = frozenset({"config", "ckpt_path", *CHANGEABLE} - {*LIMITS})
"""Settings in which runs of one experiment may differ."""
NOT_WRITTEN = "Unable to serialize instance"
"""The start of what jsonargparse writes for a value that YAML cannot store."""
MAX_LISTED = 20  # names of classes


def fit(argv: Sequence[str]) -> None:
    """Train a run, or resume one; with `--seeds`, a run for each of several seeds.

    Raises:
        UsageError: if a flag is wrong.
        OSError, ValueError: if there is nothing to resume, or the run failed.
    """
    given = find_flags(argv, "ckpt_path", "experiment", "init_from", "seeds")
    if "ckpt_path" in given and "init_from" in given:
        raise UsageError("--init_from starts a new run, --ckpt_path resumes one: give one of them")
    found = find_resumable(given["ckpt_path"], given.get("experiment")) if "ckpt_path" in given else None
    if "seeds" in given:
        require_room("studies", "--seeds")
    if has_room("studies") and (found or "seeds" in given):
        from mnist_lit.studies.seeds import train_seeds

        if train_seeds(argv, given, found):
            return
    start = resume_run(*found, argv) if found else new_start(argv)
    if not start:
        return
    if start.config.trainer.fast_dev_run:
        try_out(start)
        return
    train(start)
    kind = kind_of(start.config.data.dataset)
    images = " --images PHOTO.jpg" if kind == "photographs" or (kind == "digits" and has_room("reader")) else ""
    say("", f"next:  tensorboard --logdir {ROOT}", f"       {PROGRAM} test", f"       {PROGRAM} predict{images}")


@dataclass(frozen=True)
class Start:
    """Where a training starts: at the beginning of a new run or, with `run`, in an unfinished one."""

    parser: Parser
    config: Namespace
    run: Run | None = None
    resumed: Checkpoint | None = None
    """The checkpoint to resume, None if the run has no complete epoch."""
    initial: Checkpoint | None = None
    """The checkpoint of `--init_from`."""


def train(
    start: Start,
    callbacks: Sequence[Callback] = (),
    *,
    tested: bool = True,
    opened: Callable[[Run], object] = lambda _: None,
) -> Run:
    """Train from `start` on, test the best checkpoint once, record the results, and return the run.

    Args:
        start: what to train, and from where.
        callbacks: callbacks besides those of every run.
        tested: whether to test the best checkpoint; otherwise the test set is not even read.
        opened: called with the run as soon as its folder is there.
    """
    config, ckpt_path = start.config, start.resumed.path if start.resumed else None
    seed_everything(config.seed, verbose=False)
    settings = instantiate(start.parser, config)
    data, classifier = settings.data, settings.model
    load_weights(start, classifier, data)
    with open_run(start, keep_failed=not tested) as run:
        opened(run)
        purge_step = start.resumed.content["global_step"] if start.resumed else 0 if start.run else None
        training = build_training(config, settings.trainer, run, classifier, data, callbacks, purge_step)
        trainer = training.trainer
        prepare_folder(start, run, data)
        say(*describe(f"{run.folder}, seed {config.seed}", trainer, classifier, data))

        trainer.fit(classifier, data, ckpt_path=ckpt_path, weights_only=True)
        results = {"fit": fit_results(training, data)}  # before the test, which loads the best epoch's callbacks
        summary = [*format_fit(results["fit"]), *early_end(trainer)]
        say("", *summary)
        if tested and settings.trainer.limit_test_batches != 0:
            trainer.test(classifier, data, ckpt_path="best", weights_only=True, verbose=False)
            results["test"], lines = report_test(trainer, classifier, data.dataset.classes, training.outputs)
            summary += lines
            say(*lines)

        record(run, training, data, results, summary)
    return run


def load_weights(start: Start, classifier: DigitClassifier, data: MNISTDataModule) -> None:
    """Load the weights of `--init_from`, and print what they are; check that a resumed run has the same images.

    Raises:
        ValueError: if the images have changed, or no weights fit.
    """
    if start.resumed:
        start.resumed.check_images(data.dataset)
        if start.resumed.digests != data.dataset.digests:
            raise ValueError(f"{data.dataset.name} has other images than {start.resumed.path} was trained on")
        start.resumed.load_into(classifier)  # refuses another network before the run is touched
        start.resumed.check_resumable(classifier)
    if not (initial := start.initial):
        return
    kept, new = initial.initialize(classifier, data.dataset.classes)
    line = f"weights from {initial.path}"
    if kept:
        line += f"; reinitialised, since their shapes or classes differ: {', '.join(kept)}"
    if new:
        line += f"; reinitialised in the last layer, since these classes are new: {list_names(new)}"
    say(line)
    if not initial.was_trained_on(data.dataset):
        return
    trained = initial.settings["data"]
    if data.val_size and (changed := changed_split(trained, data.hparams)):
        flags = ", ".join(f"--data.{name}={trained[name]}" for name in changed)
        say(f"validation has images that {initial.path} was trained on, which raises its accuracy: it had {flags}")
    alike = all(trained[name] == data.hparams[name] for name in ("image_size", "fit"))
    if alike and initial.digests != data.dataset.digests:
        say(f"{data.dataset.name} has changed since that training, which may have seen images of validation or test")


@contextmanager
def open_run(start: Start, *, keep_failed: bool) -> Iterator[Run]:
    """Make the run's folder and lock it; remove it after an error that leaves nothing to resume.

    With `keep_failed`, a run that failed in its training is kept without a checkpoint, too.
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
        if isinstance(error, OSError) and error.errno and error.filename is None:  # TensorBoard's, on a full disk
            error.filename = str(run.folder)
        if isinstance(error, DivergedError) or (begun and keep_failed and isinstance(error, Exception)):
            run.fail(str(error))
        elif not (start.run or run.checkpoints.is_dir() or (begun and isinstance(error, Stopped))):
            run.remove()
        if isinstance(error, Stopped) and begun:
            raise Stopped(error.number, f"{PROGRAM} fit --ckpt_path last") from None
        raise


def prepare_folder(start: Start, run: Run, data: MNISTDataModule) -> None:
    """Write `config.yaml`, which repeats the run, and remove the results of a training beyond this start."""
    if process_rank() > 0:
        return
    config = start.config.clone()
    config.ckpt_path, config.seeds, config.data.val_size = None, None, data.val_size  # it may depend on the data
    text = start.parser.dump(config, skip_unset=False)
    if NOT_WRITTEN in text:
        raise UsageError("config.yaml could not be read again: a setting is a function, give its import path")
    try:
        saved = load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"config.yaml could not be read again: {error}") from error
    if saved["experiment"] != config.experiment:
        raise UsageError(f"--experiment: {config.experiment} is a number in YAML: give another name")
    write_atomically(run.config, text.encode())
    run.clear()
    if start.resumed and start.resumed.path.resolve() != (run.checkpoints / "last.ckpt").resolve():
        write_atomically(run.checkpoints / "last.ckpt", start.resumed.path.read_bytes())  # instead of later epochs


def record(
    run: Run, training: Training, data: MNISTDataModule, results: dict[str, dict[str, Any]], summary: Sequence[str]
) -> None:
    """Write the summary, the pictures and, last, `results.json`: a run that is killed before is not finished."""
    write_summary(training.trainer, summary)
    if training.trainer.is_global_zero:
        try:
            save_pictures(run, training.outputs, data, tested="test" in results)
        except Exception as error:  # noqa: BLE001  # the results do not depend on them
            say(f"curves and pictures could not be drawn: {error}")
        run.record(**results, made_by=training.made_by)
    if distributed.is_initialized():  # all processes end together: those that are left would report an error
        distributed.barrier()
        distributed.destroy_process_group()


def describe(run: str, trainer: Trainer, classifier: DigitClassifier, data: MNISTDataModule) -> list[str]:
    """Return lines about the run, the data and the network."""
    dataset, network = data.dataset, classifier.network
    shapes = " → ".join(str(s) if len(s) > 1 else str(s[0]) for s in layer_shapes(network, dataset.shape))
    trained = dataset.train_size - data.val_size
    square = {"crop": "the middle square of each", "pad": "all of each, with black bars,"}[data.hparams["fit"]]
    sizes = f"{trained:,} images to train on, {data.val_size:,} to validate, {dataset.test_size:,} to test"
    of_folder = [
        f"         {square} at {dataset.shape[1]}×{dataset.shape[2]} pixels (--data.fit, --data.image_size)",
        f"classes  {list_names(dataset.classes)}",
    ]
    return [
        f"run      {run}, {trainer.accelerator.name()}",
        *([f"busy     {load}"] if trainer.accelerator.name() == "cpu" and (load := describe_load()) else []),
        f"data     {dataset.name}: {sizes}",
        *([] if dataset.name in DATASETS else of_folder),
        f"network  {count_parameters(network):,} parameters: {shapes}",
        "",
    ]


def list_names(names: Sequence[str]) -> str:
    """Return the first names of classes."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{', '.join(names[:MAX_LISTED])}{more}"


def layer_shapes(network: nn.Module, shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the shapes that an image has on its way through the layers, where they change.

    >>> layer_shapes(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU()), (1, 2, 2))
    [(1, 2, 2), (4,), (3,)]
    """
    shapes = [tuple(shape)]
    copy = deepcopy(network).train()  # in evaluation mode, it may compute an image several times, mirrored

    def record(layer: nn.Module, _inputs: Any, output: Any) -> None:
        is_part = layer is not copy and any(layer.children())
        if not is_part and isinstance(output, Tensor) and (changed := tuple(output.shape[1:])) != shapes[-1]:
            shapes.append(changed)

    for layer in copy.modules():
        layer.register_forward_hook(record)
    device = next((parameter.device for parameter in copy.parameters()), None)
    with torch.no_grad():
        copy(torch.zeros(2, *shape, device=device))  # two images: batch normalisation refuses a single value
    return shapes


def try_out(start: Start) -> None:
    """Run a few batches of training, validation and test, and keep nothing (the Trainer's `fast_dev_run`)."""
    seed_everything(start.config.seed, verbose=False)
    settings = instantiate(start.parser, start.config)
    data, classifier, trainer = settings.data, settings.model, build_trainer(settings.trainer)
    load_weights(start, classifier, data)
    say(*describe("a trial run that leaves nothing", trainer, classifier, data))
    trainer.fit(classifier, data)
    trainer.test(classifier, data)
    say("a trial run: nothing is recorded")


def new_start(argv: Sequence[str]) -> Start:
    """Return the start of a new run; with `--init_from`, the network is the checkpoint's, and flags win over it."""
    parser, initial = build_parser("fit"), None
    if init_from := find_flags(argv, "init_from").get("init_from"):
        initial = Checkpoint.read(Path(init_from))
        of_the_training = signature(DigitClassifier).parameters
        network = {name: value for name, value in initial.settings["model"].items() if name not in of_the_training}
        set_checkpoint_defaults(parser, {"model": network}, initial.path)
    return Start(parser, parse(parser, argv), initial=initial)


def resume_run(run: Run, path: Path | None, argv: Sequence[str]) -> Start | None:
    """Return where to resume a run from a checkpoint, or None, with a message, if it is finished.

    `path` is None if no epoch is complete. The flags win over the run's settings.

    Raises:
        UsageError: if a flag is wrong, would change the experiment, or asks for more steps than its schedule has.
        OSError, ValueError: if its checkpoint cannot be read (see `Checkpoint.read_newest`).
    """
    parser = build_parser("fit")
    config = parse(parser, [f"--config={run.config}", *argv])
    resumed = Checkpoint.read_newest(path) if path else None
    if resumed and not resumed.content.get("complete_epoch", True):
        if resumed.path.name != "best.ckpt":  # which a run has that a limit has cut in its first epoch
            raise ValueError(f"{resumed.path} was saved within an epoch: give a checkpoint of a complete one")
        resumed = Checkpoint.read_newest(run.last) if run.last else None
    changed = changed_limits(parser, config, run, resumed)
    if changed & {*LENGTH} and config.model.schedule != "constant":
        raise UsageError(f"the schedule of {run.folder} has a fixed number of steps: start a new run to train longer")
    if "fit" in run.results() and not changed:
        stopped = resumed and resumed.content.get("should_stop")
        longer = "raise --trainer.max_epochs, or the limit that has ended it, to train it longer"
        if config.model.schedule != "constant":
            longer = "so is the schedule of its learning rate: start a new run to train longer"
        say(f"{run.folder} is finished: {'a callback has ended it' if stopped else longer}")
        return None
    if resumed is None:
        say(f"{run.folder} has no complete epoch: it starts again")
        initial = Checkpoint.read(Path(config.init_from)) if config.init_from else None
        return Start(parser, config, run, initial=initial)
    if changed:
        _check_limits(config, resumed)
    say(f"resuming {resumed.path}")
    return Start(parser, config, run, resumed)


def is_changeable(name: str) -> bool:
    """Return whether a setting may change when a run is resumed."""
    return f"{name}.".startswith(tuple(f"{allowed}." for allowed in CHANGEABLE))


def changed_limits(parser: Parser, config: Namespace, run: Run, resumed: Checkpoint | None) -> set[str]:
    """Return the limits that differ from those of the training so far, by a flag or since `config.yaml` was edited.

    Raises:
        UsageError: if another setting would change the experiment.
    """
    given = flat_settings(parser, config)
    saved = resumed.content.get("config") if resumed else None
    if not saved or not isinstance(saved, dict):  # no epoch is complete, or another callback saved the checkpoint
        saved = run.settings()
    # The version that began the run may not have had a setting: then it had the default.
    trained = flat_settings(parser, parser.get_defaults()) | saved
    changed = {name for name in {*trained, *given} if trained.get(name) != given.get(name)} - {"ckpt_path", "config"}
    if not DATASETS.keys() & {trained["data.dataset"], given["data.dataset"]}:
        changed.discard("data.dataset")  # a folder may be moved: its images are compared when it is read
    if given["experiment"] == run.folder.resolve().parent.name:
        changed.discard("experiment")  # so may the run
    for name in sorted(changed):
        if not is_changeable(name):
            was, best = f"it was {trained.get(name)}, not {given.get(name)}", run.checkpoints / "best.ckpt"
            raise UsageError(
                f"--{name} cannot change when a run is resumed (in {run.folder} {was}): "
                f"undo the change, or start a new run with --init_from {best}"
            )
    return changed & {*LIMITS}


def _check_limits(config: Namespace, resumed: Checkpoint) -> None:
    """Raise UsageError if a checkpoint is already behind the new limits."""
    content: dict[str, Any] = resumed.content
    if content.get("should_stop"):
        raise UsageError(f"a callback ended the training of {resumed.path}: start a new run to train longer")
    done = {"max_epochs": (content["epoch"] + 1, "epochs"), "max_steps": (content["global_step"], "steps")}
    for name, (number, what) in done.items():
        if config.trainer[name] is not None and -1 < config.trainer[name] < number:
            raise UsageError(f"--trainer.{name} {config.trainer[name]}: {resumed.path} has {number:,} {what} already")
