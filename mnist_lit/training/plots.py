"""Pictures of a run: the confusion matrix and the mistakes of an evaluation, and the curves of the training."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, cast

from PIL import Image
from torch import Tensor

from mnist_lit.data import MNISTDataModule
from mnist_lit.runs.folders import Run
from mnist_lit.system.files import write_atomically
from mnist_lit.training.drawings import MAX_CLASSES, draw_confusion, draw_images, mistake_captions
from mnist_lit.training.evaluation import Outputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mnist_lit.datasets.sampling import Batch

__all__ = ["MAX_IMAGES", "draw_captioned", "draw_curves", "draw_evaluation", "save_pictures"]

MAX_IMAGES = 32  # in a picture
COLOURS = {"train": "tab:blue", "val": "tab:orange"}
NAMES = {"train": "training", "val": "validation"}


def draw_evaluation(outputs: Outputs, data: MNISTDataModule, stage: str) -> dict[str, Image.Image]:
    """Return pictures of the latest evaluation: `confusion`, unless there are too many classes, and `mistakes`.

    Args:
        outputs: outputs of the evaluation.
        data: the data module.
        stage: `val` or `test`.
    """
    classes, pictures = data.dataset.classes, {}
    if len(classes) <= MAX_CLASSES:
        pictures["confusion"] = draw_confusion(outputs.confusion(), classes)
    indices, probabilities = outputs.mistakes(MAX_IMAGES)
    images = data.test_set if stage == "test" else data.val_set
    pixels, labels = cast("Batch", images.__getitems__(indices))
    pictures["mistakes"] = draw_captioned(data, pixels, mistake_captions(labels, probabilities, classes))
    return pictures


def draw_captioned(data: MNISTDataModule, pixels: Tensor, captions: Sequence[str]) -> Image.Image:
    """Draw images of a data set, (N, C, H, W), with captions: drawings are inverted, photographs are not."""
    return draw_images(pixels, captions, inverted=data.dataset.kind != "photographs")


def save_pictures(run: Run, outputs: Outputs, data: MNISTDataModule, *, tested: bool) -> None:
    """Save `curves.png` and, of the test, `confusion.png` and `mistakes.png` in the folder of a run."""
    for name, picture in draw_evaluation(outputs, data, "test").items() if tested else ():
        picture.save(content := BytesIO(), "PNG")
        write_atomically(run.folder / f"{name}.png", content.getvalue())
    if curves := draw_curves(run.folder):
        curves.savefig(content := BytesIO(), format="png", dpi=150)
        write_atomically(run.folder / "curves.png", content.getvalue())


def draw_curves(folder: Path) -> "Figure | None":
    """Return the curves of a run, including the part before it was resumed, or None if nothing was logged."""
    from matplotlib.figure import Figure  # here, since the imports take a second
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})  # all of them
    events.Reload()
    if not (logged := {*events.Tags()["scalars"]}):
        return None

    def points(tag: str) -> tuple[list[int], list[float]]:
        found = events.Scalars(tag)
        return [point.step for point in found], [point.value for point in found]

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        if (tag := f"train/{metric}_by_step") in logged:
            axes.plot(*points(tag), color=COLOURS["train"], alpha=0.3, label="training, by step")
        for stage, name in NAMES.items():
            if (tag := f"{stage}/{metric}") in logged:
                axes.plot(*points(tag), color=COLOURS[stage], marker=".", label=name)
        axes.set(title=metric, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
