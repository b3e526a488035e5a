"""An ensemble averages probabilities, in every command that takes a checkpoint."""

import csv
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import FLAGS, RUN, Command
from torch import Tensor, nn

from mnist_lit import DigitClassifier
from mnist_lit.calibration import calibrated_softmax
from mnist_lit.datasets.catalog import MNIST
from mnist_lit.runs.ensemble import Calibrated, Ensemble, average, explain_calibration

BEST = RUN.checkpoints / "best.ckpt"


@pytest.fixture
def two(trained: Command) -> Command:
    """`command` in a folder with two finished runs, of which the second has other weights."""
    shutil.copytree(RUN.folder, other := RUN.folder.with_name("version_1"))
    path = other / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    weight = content["state_dict"]["network.fc.weight"]
    weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    torch.save(content, path)
    return trained


def load(number: int) -> DigitClassifier:
    return DigitClassifier.load_from_checkpoint(f"runs/baseline/version_{number}/checkpoints/best.ckpt").eval()


def probabilities(model: Calibrated, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        return calibrated_softmax(model.network(pixels), model.temperature)


def test_probabilities_are_the_mean_of_the_calibrated_ones(two: Command, data_dir: Path) -> None:
    pixels, labels = MNIST.read(data_dir, train=False)
    members = [load(0), load(1)]
    expected = torch.stack([probabilities(member, pixels) for member in members]).mean(dim=0)
    assert probabilities(average(members), pixels).allclose(expected, atol=1e-6)

    recorded = RUN.results()
    code, out, err = two("test", "--ckpt_path", "runs/baseline")
    assert (code, err) == (0, "")
    assert RUN.results() == recorded, "nothing is recorded"
    errors = int((expected.argmax(dim=1) != labels).sum())
    assert f"{errors:,} errors in 10,000" in out
    assert "most confused: " in out
    for number, member in enumerate(members):
        accuracy = (probabilities(member, pixels).argmax(dim=1) == labels).float().mean()
        path = Path(f"runs/baseline/version_{number}/checkpoints/best.ckpt")
        assert f"{float(accuracy):.2%}  {path}" in out.splitlines()

    flags = ["--ckpt_path", RUN.folder, "runs/baseline/version_1/checkpoints/best.ckpt"]
    assert two("predict", *flags, "--trainer.limit_predict_batches=1")[0] == 0
    with Path("predictions.csv").open(encoding="utf-8") as file:
        (_, *rows) = csv.reader(file)
    found = torch.tensor([[float(p) for p in row[3:]] for row in rows])
    assert found.allclose(expected[: len(found)], atol=2e-6)


def test_a_probability_that_float32_cannot_hold_leaves_the_loss_finite() -> None:
    class Constant(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.tensor([[0.0, 1_000.0]]).expand(len(pixels), 2)

    classifier = DigitClassifier(classes=2)
    classifier.network = Constant()  # type: ignore[assignment]  # any network serves
    logits = Ensemble([classifier, classifier])(torch.zeros(1, 1))
    assert logits.isfinite().all()
    assert float(logits[0, 1] - logits[0, 0]) == pytest.approx(1_000)


def test_an_ensemble_is_exported(two: Command) -> None:
    code, out, err = two("export", "--ckpt_path", "runs/baseline", "--output=joint.onnx")
    assert (code, err) == (0, "")
    assert "10,000 test images classified alike, probabilities differ by" in out
    assert Path("joint.onnx").is_file()


def test_an_ensemble_is_validated_on_images_that_no_member_was_trained_on(two: Command) -> None:
    code, out, err = two("validate", "--ckpt_path", "runs/baseline")
    assert (code, err) == (0, "")
    assert out.rstrip().endswith("in 5,000")
    assert two("fit", *FLAGS, "--data.split_seed=1", "--trainer.max_epochs=1")[0] == 0
    code, _, err = two("validate", "--ckpt_path", "runs/baseline")
    assert (code, err) == (
        2,
        "error: --data.split_seed: leave it at 1, or images would be among those trained on\n",
    )


def test_checkpoints_of_other_images_have_no_ensemble(two: Command) -> None:
    path = Path("runs/baseline/version_1/checkpoints/best.ckpt")
    content = torch.load(path, weights_only=True)
    content["datamodule_hyper_parameters"]["dataset"] = "FashionMNIST"
    torch.save(content, path)
    code, _, err = two("test", "--ckpt_path", "runs/baseline")
    assert (code, err.count("\n")) == (2, 1)
    assert "an ensemble needs the same data set and image size" in err


def test_a_folder_without_a_finished_run_is_an_error(command: Command) -> None:
    Path("empty").mkdir()
    code, _, err = command("test", "--ckpt_path", "empty")
    assert (code, err) == (1, "error: no finished run in empty: give the folder of an experiment or of a run\n")


def test_an_ensemble_is_not_calibrated() -> None:
    """A mean of calibrated probabilities is too low where the members disagree."""
    one, other = DigitClassifier(), DigitClassifier()
    assert "without validation" in str(explain_calibration(one))
    for classifier in (one, other):
        classifier.temperature.fill_(0.5)
        assert explain_calibration(classifier) is None
    assert "ensemble" in str(explain_calibration(average([one, other])))


def test_a_checkpoint_counts_once(two: Command) -> None:
    code, out, err = two("validate", "--ckpt_path", "runs/baseline", RUN.folder, BEST.absolute())
    assert (code, err) == (0, "")
    assert out.count("checkpoint ") == 2


def test_best_is_that_of_the_newest_run_even_beside_a_folder_of_this_name(trained: Command) -> None:
    Path("best").mkdir()
    code, out, _ = trained("test", "--trainer.limit_test_batches=1")
    assert code == 0
    assert f"checkpoint {BEST}" in out


def test_a_repeated_run_counts_once(two: Command) -> None:
    shutil.copytree(RUN.folder, RUN.folder.with_name("version_2"))
    code, out, err = two("test", "--ckpt_path", "runs/baseline")
    assert (code, err) == (0, "")
    repeated, first = (f"runs/baseline/version_{number}/checkpoints/best.ckpt" for number in (2, 0))
    assert f"{repeated} has the same weights as {first}, and does not count" in out
    assert len(re.findall(r"^checkpoint ", out, re.MULTILINE)) == 2


def test_an_ensemble_has_no_safetensors(two: Command) -> None:
    code, _, err = two("export", "--ckpt_path=runs/baseline", "--output=x.safetensors")
    assert code == 2
    assert err == (
        "error: --output: .safetensors has the weights of one network: export an ensemble to .onnx or .pt2\n"
    )
