"""A person sees a run in TensorBoard without configuring anything."""

import pytest
import torch
from conftest import RUN, SHORT, Command
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor

from mnist_lit.training import tensorboard as board


def events() -> EventAccumulator:
    return EventAccumulator(str(RUN.folder), size_guidance={"images": 0, "tensors": 0}).Reload()


def text_of(found: EventAccumulator, tag: str) -> str:
    [event] = found.Tensors(f"{tag}/text_summary")
    return bytes(event.tensor_proto.string_val[0]).decode()


@pytest.fixture
def shown(trained: Command) -> EventAccumulator:
    """What there is to see of a short run."""
    assert trained is not None  # which puts it into the current folder
    return events()


def test_pictures_stand_where_the_accuracies_do(shown: EventAccumulator) -> None:
    steps = {tag: [event.step for event in shown.Images(tag)] for tag in shown.Tags()["images"]}
    validations = [event.step for event in shown.Scalars("val/accuracy")]
    assert validations == [59, 119]
    assert steps == {
        "val/confusion": validations,
        "val/mistakes": validations,
        "train/batch": validations,
        "train/filters": [120],
        "test/confusion": [120],
        "test/mistakes": [120],
    }


def test_training_and_validation_share_a_chart(shown: EventAccumulator) -> None:
    [event] = shown.Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts == {"loss": ["train/loss", "val/loss"], "accuracy": ["train/accuracy", "val/accuracy"]}
    assert {tag for tags in charts.values() for tag in tags} <= set(shown.Tags()["scalars"])


def test_settings_stand_beside_the_accuracies_that_they_led_to(shown: EventAccumulator) -> None:
    found = [
        HParamsPluginData.FromString(shown.SummaryMetadata(tag).plugin_data.content)
        for tag in ("_hparams_/experiment", "_hparams_/session_start_info")
    ]
    assert [metric.name.tag for metric in found[0].experiment.metric_infos] == ["val/accuracy", "test/accuracy"]
    settings = found[1].session_start_info.hparams
    assert settings["learning_rate"].number_value == 0.001
    assert settings["channels"].string_value == "[4, 8]"
    assert (settings["seed"].number_value, settings["max_epochs"].number_value) == (777, 2)
    assert "hp_metric" not in shown.Tags()["scalars"]


def test_there_are_the_config_the_summary_the_graph_and_each_class(shown: EventAccumulator) -> None:
    assert text_of(shown, "config").replace("    ", "", 1).startswith("experiment: baseline\n")
    assert "test accuracy" in text_of(shown, "summary")
    rows = text_of(shown, "test/accuracy by class").splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == list("0123456789")
    assert sum(int(row.split("|")[3].replace(",", "")) for row in rows) == 10_000
    assert "layer1" in str(shown.Graph())


def test_a_thousand_test_digits_are_laid_out_by_their_features(shown: EventAccumulator) -> None:
    assert shown.Tags()["scalars"]
    [config] = RUN.folder.glob("projector_config.pbtxt")
    assert config.read_text(encoding="utf-8").count("tensor_path") == 1
    folder = RUN.folder / "projector" / "test"
    rows = [line.split("\t") for line in (folder / "tensors.tsv").read_text(encoding="utf-8").splitlines()]
    assert (len(rows), len(rows[0])) == (1_000, 50)
    assert (folder / "metadata.tsv").read_text(encoding="utf-8").split()[:5] == list("72104")
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (32 * 28, 32 * 28)


def test_the_last_projection_replaces_a_former_one(shown: EventAccumulator, command: Command) -> None:
    assert shown.Tags()["images"]
    assert command("fit", "--ckpt_path=last", "--trainer.max_epochs=3")[0] == 0
    assert len(list(RUN.folder.glob("projector/*"))) == 1
    assert (RUN.folder / "projector_config.pbtxt").read_text(encoding="utf-8").count("tensor_path") == 1


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, list[str]]]:
    """The digits that were drawn, with their captions."""
    calls: list[tuple[Tensor, list[str]]] = []

    def draw_images(pixels: Tensor, captions: list[str]) -> Image.Image:
        calls.append((pixels, captions))
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(board, "draw_images", draw_images)
    return calls


def test_training_images_are_shown_as_the_network_gets_them(
    command: Command, drawn: list[tuple[Tensor, list[str]]]
) -> None:
    assert command("fit", *SHORT, "--data.rotation=30", "--trainer.max_epochs=1")[0] == 0
    [(pixels, captions)] = [call for call in drawn if call[0].dtype == torch.float32 and len(call[1][0]) == 1]
    assert len(captions) == 32
    assert (pixels != pixels.round()).any(), "turned, not as in the files"


def test_without_a_logger_a_run_still_leaves_checkpoints_and_results(command: Command) -> None:
    code, _, err = command("fit", *SHORT, "--trainer.logger=false", "--trainer.limit_test_batches=1.0")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in RUN.folder.iterdir()) == ["checkpoints", "config.yaml", "results.json"]
    assert "test" in RUN.results()
