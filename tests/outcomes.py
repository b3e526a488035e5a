"""What a run has come to, and where two outcomes differ, tensors by a single bit."""

from typing import Any

import torch
from conftest import RUN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run

__all__ = ["differences", "outcome"]


def differences(first: Any, second: Any, at: str = "") -> list[str]:
    """Return where the contents of checkpoints differ, tensors by a single bit."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return [] if torch.equal(first, second) else [at]
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return [found for key in first for found in differences(first[key], second[key], f"{at}/{key}")]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [found for i, (one, other) in pairs for found in differences(one, other, f"{at}/{i}")]
    return [] if type(first) is type(second) and first == second else [f"{at}: {first} != {second}"]


def outcome(run: Run = RUN) -> dict[str, Any]:
    """Return all that a run came to, but for the time that it took."""
    content = {path.name: Checkpoint.read(path).content for path in sorted(run.checkpoints.glob("*.ckpt"))}
    for checkpoint in content.values():
        del checkpoint["callbacks"]["Limits"]
        # Lightning's count of the batches of a validation that is over, which nothing reads.
        del checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    # TensorBoard reads files in the order of their names, which have the second of their beginning: put in order what
    # followed faster than a person can start a program.
    files = sorted(run.folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns)
    for number, path in enumerate(files):
        path.rename(path.with_name(f"events.out.tfevents.{number:010}"))
    events = EventAccumulator(str(run.folder)).Reload()
    curves = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    pictures = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    fitted = {name: value for name, value in run.results()["fit"].items() if name.startswith(("best", "epochs"))}
    return {
        "checkpoints": content,
        "curves": curves,
        "pictures": pictures,
        "fit": fitted,
        "config": run.config.read_text(encoding="utf-8"),
    }
