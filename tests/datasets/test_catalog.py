"""The catalog has the published files, and only their content is accepted."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from torchvision import datasets as listed

from mnist_lit.datasets.catalog import DATASETS, MNIST, find_dataset
from mnist_lit.datasets.idx import IDXDataset

SHIPPED = Path(__file__).parent.parent.parent / "mnist_lit" / "datasets" / "mnist"
IMAGES, LABELS = MNIST.published_files[2:]


@pytest.mark.parametrize(
    ("name", "label", "class_name"), [("MNIST", 9, "9"), ("FashionMNIST", 9, "Ankle boot"), ("KMNIST", 3, "tsu")]
)
def test_files_checksums_and_mirrors_are_those_of_torchvision_and_the_classes_have_names(
    name: str, label: int, class_name: str
) -> None:
    dataset, reference = DATASETS[name], getattr(listed, name)
    assert isinstance(dataset, IDXDataset)
    assert [(file.name, file.md5) for file in dataset.published_files] == reference.resources
    assert list(dataset.mirrors[-len(reference.mirrors) :]) == reference.mirrors
    assert (len(dataset.classes), dataset.classes[label]) == (10, class_name)


def test_huge_file_is_rejected_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / IMAGES.name).open("w+b") as file:
        file.truncate(1 << 40)  # sparse: takes no space on the disk
    assert IMAGES.read(tmp_path / IMAGES.name) is None


@pytest.mark.parametrize("train_size", [500, 70_000])
def test_a_wrong_size_in_an_entry_is_named_and_does_not_make_a_file_damaged(
    data_dir: Path, tmp_path: Path, train_size: int
) -> None:
    wrong, right = replace(MNIST, train_size=train_size), "MNIST: 60,000 labels and pixels (60000, 1, 28, 28)"
    message = f"{right}, expected {train_size:,} and ({train_size}, 1, 28, 28)"
    for folder, mirror in (
        (shutil.copytree(data_dir, tmp_path / "copy"), "file:///nowhere"),
        (tmp_path, SHIPPED.as_uri()),
    ):
        wrong.fetch(folder, [mirror])
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            wrong.read(folder, train=True)


def test_a_wrong_number_of_channels_in_an_entry_is_refused(data_dir: Path) -> None:
    message = r"^MNIST: 10,000 labels and pixels \(10000, 1, 28, 28\), expected 10,000 and \(10000, 3, 28, 28\)$"
    with pytest.raises(ValueError, match=message):
        replace(MNIST, shape=(3, 28, 28)).read(data_dir, train=False)


def test_labels_beyond_the_classes_of_an_entry_are_refused(data_dir: Path) -> None:
    with pytest.raises(ValueError, match="labels 0 to 9, expected 0 to 7"):
        replace(MNIST, classes="01234567").read(data_dir, train=False)


def test_a_folder_by_the_name_of_a_data_set_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_dataset("MNIST") is MNIST
    assert caplog.messages == []
    Path("MNIST").mkdir()
    assert find_dataset("MNIST") is MNIST
    assert caplog.messages == [f"MNIST is the data set of this name; for the folder of images, give .{os.sep}MNIST"]


def test_mirrors_with_a_password_are_refused_without_showing_it() -> None:
    for mirror in ("http://me:secret@127.0.0.1:9/mnist", "https://secret@example.org/mnist"):
        with pytest.raises(ValueError, match=r"^mirrors: a user name or password in a URL is not supported") as caught:
            find_dataset("MNIST", mirrors=["file:///nowhere", mirror])
        assert "secret" not in str(caught.value)
    assert find_dataset("MNIST", mirrors=["https://cdn.example.org/mnist@1.0/raw"]) is MNIST
