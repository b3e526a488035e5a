"""The outcome of a run, and the differences of two outcomes: tensors differ by a single bit."""

import re
from typing import Any, cast

import torch
from conftest import RUN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run

__all__ = ["differences", "outcome", "without_prefix"]

PARENT = r".*[/\\](?=runs[/\\])"  # of an absolute path: runs are copied from one folder to another


def differences(first: Any, second: Any, at: str = "") -> list[str]:
    """Return where two outcomes differ."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return [] if torch.equal(first, second) else [at]
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return [found for key in first for found in differences(first[key], second[key], f"{at}/{key}")]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [found for i, (one, other) in pairs for found in differences(one, other, f"{at}/{i}")]
    return [] if type(first) is type(second) and first == second else [f"{at}: {first} != {second}"]


def outcome(run: Run = RUN) -> dict[str, Any]:
    """Return all results of a run but its times; absolute paths begin at `runs`."""
    content = {path.name: Checkpoint.read(path).content for path in sorted(run.checkpoints.glob("*.ckpt"))}
    for checkpoint in content.values():
        del checkpoint["callbacks"]["TrainingTimer"]
        # Lightning's counts of the batches of a completed validation and of all epochs, which nothing reads.
        del checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
        del checkpoint["loops"]["fit_loop"]["epoch_progress"]["total"]
    # TensorBoard reads files in the order of their names, which have the second of their start: order those that were
    # started within a second.
    files = sorted(run.folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns)
    for number, path in enumerate(files):
        path.rename(path.with_name(f"events.out.tfevents.{number:010}"))
    # All pictures: by default, TensorBoard keeps a random four of each tag, those of a resumed run's other ones.
    events = EventAccumulator(str(run.folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    pictures = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    fitted = {name: value for name, value in run.results()["fit"].items() if name.startswith(("best", "epochs"))}
    found = {
        "checkpoints": content,
        "curves": curves,
        "pictures": pictures,
        "fit": fitted,
        "config": run.config.read_text(encoding="utf-8"),
    }
    return cast("dict[str, Any]", without_prefix(found, PARENT))


def without_prefix(value: Any, prefix: str) -> Any:
    """Return nested containers in which no string begins with a regular expression."""
    if isinstance(value, dict):
        return {without_prefix(key, prefix): without_prefix(item, prefix) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(without_prefix(item, prefix) for item in value)
    return re.sub(f"^{prefix}", "", value) if isinstance(value, str) else value
