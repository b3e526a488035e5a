"""What a run writes for TensorBoard: images, charts, hyperparameters and texts."""

import csv

import pytest
import torch
from conftest import RUN, SHORT, Command
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor

from mnist_lit.training import plots


@pytest.fixture
def events(trained: Command) -> EventAccumulator:
    """The events of a short run."""
    assert trained is not None  # copies the run into the current folder
    return EventAccumulator(str(RUN.folder), size_guidance={"images": 0, "tensors": 0}).Reload()


def read_text(events: EventAccumulator, tag: str) -> str:
    [event] = events.Tensors(f"{tag}/text_summary")
    return bytes(event.tensor_proto.string_val[0]).decode()


def test_images_have_the_steps_of_the_accuracies(events: EventAccumulator) -> None:
    steps = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    validations = [event.step for event in events.Scalars("val/accuracy")]
    assert validations == [59, 119]
    assert steps == {
        "val/confusion": validations,
        "val/mistakes": validations,
        "train/batch": validations,
        "test/confusion": [120],
        "test/mistakes": [120],
    }


def test_the_loss_of_steps_is_a_curve_of_its_own(events: EventAccumulator) -> None:
    by_step = events.Scalars("train/loss_by_step")
    assert [event.step for event in by_step] == list(range(120)), "all steps of short epochs"
    epochs = [sum(event.value for event in by_step[first : first + 60]) / 60 for first in (0, 60)]
    assert epochs == pytest.approx([event.value for event in events.Scalars("train/loss")], rel=1e-4)


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        (["--trainer.accumulate_grad_batches=3"], [0, 1, 2, 3, 4, 5, 6]),  # the last step has two batches
        (["--trainer.log_every_n_steps=8"], [7, 15]),
        (["--trainer.log_every_n_steps=0"], []),
    ],
    ids=["accumulation", "every 8 steps", "never"],
)
def test_each_step_is_logged_once_and_with_the_learning_rate(
    command: Command, flags: list[str], steps: list[int]
) -> None:
    schedule = ["--model.schedule=one_cycle", "--trainer.max_epochs=1", "--trainer.logger=CSVLogger"]
    assert command("fit", *SHORT, *schedule, *flags)[0] == 0
    events = EventAccumulator(str(RUN.folder), size_guidance={"scalars": 0}).Reload()
    for tag in ("train/loss_by_step", "lr-Adam"):
        logged = events.Scalars(tag) if tag in events.Tags()["scalars"] else []
        assert [event.step for event in logged] == steps, tag
    with (RUN.folder / "csv/version_0/metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [int(row["step"]) for row in csv.DictReader(file) if row.get("train/loss_by_step")]
    assert rows == steps


def test_training_and_validation_curves_are_in_one_chart(events: EventAccumulator) -> None:
    [event] = events.Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts == {"loss": ["train/loss", "val/loss"], "accuracy": ["train/accuracy", "val/accuracy"]}


def test_hyperparameters_are_logged_with_the_accuracies(events: EventAccumulator) -> None:
    experiment, session = (
        HParamsPluginData.FromString(events.SummaryMetadata(tag).plugin_data.content)
        for tag in ("_hparams_/experiment", "_hparams_/session_start_info")
    )
    assert [metric.name.tag for metric in experiment.experiment.metric_infos] == ["val/accuracy", "test/accuracy"]
    settings = session.session_start_info.hparams
    assert settings["learning_rate"].number_value == 0.001
    assert settings["channels"].string_value == "[4, 8]"
    assert (settings["seed"].number_value, settings["max_epochs"].number_value) == (777, 2)


def test_config_summary_and_accuracy_by_class_are_logged(events: EventAccumulator) -> None:
    assert read_text(events, "config").replace("    ", "", 1).startswith("experiment: baseline\n")
    assert "test accuracy" in read_text(events, "summary")
    rows = read_text(events, "test/accuracy by class").splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == list("0123456789")
    assert sum(int(row.split("|")[3].replace(",", "")) for row in rows) == 10_000


def test_a_class_without_images_has_no_accuracy(command: Command) -> None:
    """It was not tested, and is not always misread."""
    one_batch = ["--data.batch_size=5", "--trainer.max_epochs=1", "--trainer.limit_test_batches=1"]
    assert command("fit", *SHORT, *one_batch)[0] == 0
    rows = read_text(EventAccumulator(str(RUN.folder)).Reload(), "test/accuracy by class").splitlines()[2:]
    tested = {row.split("|")[1].strip(): row.split("|")[2:4] for row in rows}
    assert {label for label, (_, images) in tested.items() if int(images)} == {"7", "2", "1", "0", "4"}
    assert all((accuracy.strip() == "–") == (int(images) == 0) for accuracy, images in tested.values())


def test_training_images_are_drawn_with_augmentation(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Tensor, list[str]]] = []

    def draw_images(pixels: Tensor, captions: list[str], *, inverted: bool) -> Image.Image:
        assert inverted
        calls.append((pixels, captions))
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(plots, "draw_images", draw_images)
    assert command("fit", *SHORT, "--data.rotation=30", "--trainer.max_epochs=1")[0] == 0
    [(pixels, captions)] = [call for call in calls if call[0].dtype == torch.float32 and len(call[1][0]) == 1]
    assert len(captions) == 32
    assert (pixels != pixels.round()).any(), "interpolated by the rotation"


def test_run_without_a_logger_saves_checkpoints_and_results(command: Command) -> None:
    command.succeed("fit", *SHORT, "--trainer.logger=false")
    written = ["checkpoints", "config.yaml", "confusion.png", "mistakes.png", "results.json"]
    assert sorted(path.name for path in RUN.folder.iterdir()) == written
    assert "test" in RUN.results()
