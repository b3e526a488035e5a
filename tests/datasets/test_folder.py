"""A folder of images becomes a data set: its classes, pixels, test set and cache, and what is wrong with it."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import posix
from numpy.typing import NDArray
from PIL import Image

from mnist_lit.datasets.catalog import DATASETS, find_dataset
from mnist_lit.datasets.folder import FolderDataset, read_folder
from mnist_lit.datasets.images import UnreadableImageError, open_image

CLASSES = ("cat", "ant", "bee")  # created in this order
OPEN_IMAGE, TOTAL_MEMORY = "mnist_lit.datasets.folder.open_image", "mnist_lit.datasets.folder.total_memory"


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    """Return the pixels of a picture, (H, W) or (H, W, 3), of a colour and with noise of its own."""
    random = np.random.default_rng(seed)
    colour = random.integers(0, 200, shape[2:])
    return (colour + random.integers(0, 50, shape)).astype(np.uint8)


def save(pixels: NDArray[np.uint8] | NDArray[np.uint16], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def fill(folder: Path, number: int = 10, shape: tuple[int, ...] = (30, 40, 3), seed: int = 0) -> None:
    """Save pictures in a folder of each class."""
    for label, name in enumerate(CLASSES):
        for index in range(number):
            save(noise(seed + 100 * label + index, *shape), folder / name / f"{index:02}.png")


def read(path: Path, image_size: int | None = None, cache: str = "cache") -> FolderDataset:
    return read_folder(str(path), image_size, path.parent / cache)


def equal(first: FolderDataset, second: FolderDataset) -> bool:
    pairs = zip((*first.train, *first.test), (*second.train, *second.test), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def contents(pixels: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in pixels}


def refuse_to_open(monkeypatch: pytest.MonkeyPatch, but: str = "none") -> None:
    def fail(name: str, *, for_square: bool) -> NDArray[np.float32]:
        assert name.endswith(but), name
        return open_image(name, for_square=for_square)

    monkeypatch.setattr(OPEN_IMAGE, fail)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with 30 images to train on and 6 to test."""
    fill(tmp_path / "photos/train")
    fill(tmp_path / "photos/test", 2, seed=50)
    return tmp_path / "photos"


def test_classes_are_in_alphabetical_order_and_each_image_has_its_label(photos: Path) -> None:
    dataset = read(photos)
    assert (dataset.name, dataset.classes) == (str(photos), ["ant", "bee", "cat"])
    assert (dataset.train_size, dataset.test_size, dataset.shape) == (30, 6, (3, 32, 32))
    for train, number in ((True, 10), (False, 2)):
        pixels, labels = dataset.read("unused", train=train)
        assert (pixels.shape, pixels.dtype) == ((3 * number, 3, 32, 32), torch.uint8)
        assert (labels.tolist(), labels.dtype) == ([0] * number + [1] * number + [2] * number, torch.int64)


def test_pixels_are_those_of_the_square_in_the_middle(photos: Path) -> None:
    pixels, _ = read(photos, 30).train
    for index, seed in ((0, 100), (19, 209), (20, 0)):  # the first ant, the last bee, the first cat
        assert (pixels[index].permute(1, 2, 0).numpy() == noise(seed, 30, 40, 3)[:, 5:35]).all()


def test_an_image_of_the_right_size_is_unchanged_and_others_are_scaled(photos: Path) -> None:
    small, large = noise(1, 32, 32, 3), noise(2, 64, 64, 3)
    save(small, photos / "train/ant/00.png")
    save(large, photos / "train/ant/01.png")
    pixels = read(photos).train[0].permute(0, 2, 3, 1).numpy()
    assert (pixels[0] == small).all()
    assert (pixels[1] == np.asarray(Image.fromarray(large).resize((32, 32), Image.Resampling.BICUBIC))).all()


@pytest.mark.parametrize("root", ["photos", "photos/train"])
def test_without_a_test_folder_a_tenth_of_each_class_is_held_out(root: str, tmp_path: Path) -> None:
    fill(tmp_path / root)
    dataset, again = read(tmp_path / "photos"), read(tmp_path / "photos", cache="other")
    assert dataset.train[1].bincount().tolist() == [9, 9, 9]
    assert dataset.test[1].tolist() == [0, 1, 2]
    assert len(contents(dataset.train[0]) | contents(dataset.test[0])) == 30, "all are used, and none twice"
    assert equal(dataset, again)


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    fill(path := tmp_path / "photos")
    (path / "cat").rename(path / "train")
    dataset = read(path)
    assert (dataset.classes, dataset.train_size, dataset.test_size) == (["ant", "bee", "train"], 27, 3)


def test_grey_images_have_one_channel_until_there_is_one_with_colours(tmp_path: Path) -> None:
    fill(path := tmp_path / "photos", shape=(32, 32))
    save(np.dstack([noise(0, 32, 32)] * 3), path / "cat/00.png")  # grey, saved with three channels
    grey = read(path)
    assert grey.shape == (1, 32, 32)
    save(noise(0, 32, 32, 3), path / "cat/00.png")
    coloured = read(path)
    assert coloured.shape == (3, 32, 32)
    assert torch.equal(coloured.train[0][:10], grey.train[0][:10].expand(-1, 3, -1, -1))
    many = [(image != image[:1]).any().item() for image in torch.cat([coloured.train[0], coloured.test[0]])]
    assert sum(many) == 1


@pytest.mark.parametrize("side", [1, 8, 512])
def test_image_size_is_the_height_and_width(photos: Path, side: int) -> None:
    assert read(photos, side).shape == (3, side, side)


@pytest.mark.parametrize("side", [-1, 0, 513])
def test_an_image_size_out_of_range_is_refused(photos: Path, side: int) -> None:
    with pytest.raises(ValueError, match=f"^image_size must be 1 to 512, got {side}$"):
        read(photos, side)


def test_find_dataset_knows_the_catalog_and_folders(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_dataset("MNIST") is DATASETS["MNIST"]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # on Windows
    dataset = find_dataset("~/photos", 16, tmp_path / "cache")
    assert (dataset.name, dataset.shape, dataset.train_size) == ("~/photos", (3, 16, 16), 30)
    assert equal(read(photos, 16), read_folder("~/photos", 16, tmp_path / "cache"))


def test_find_dataset_refuses_other_names_and_a_size_for_the_catalog(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^image_size is for folders of images: those of MNIST have their size$"):
        find_dataset("MNIST", 32)
    (tmp_path / "file").touch()
    for name in ("mnits", str(tmp_path / "file"), "~nobody-of-this-name/photos", "a" * 1_000, ""):
        with pytest.raises(ValueError, match=rf"^dataset must be MNIST, .*CIFAR10 or a folder of images, got {name}"):
            find_dataset(name)


def test_images_are_decoded_as_a_viewer_shows_them(photos: Path) -> None:
    picture = np.full((32, 32), 255, dtype=np.uint8)
    picture[:16, :8] = 50  # without symmetry
    save(picture.astype(np.uint16) * 257, photos / "train/ant/00.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90°
    Image.fromarray(np.rot90(picture).copy()).save(photos / "train/ant/000.jpg", exif=exif)
    deep, rotated = read(photos).train[0][:2, 0].numpy()
    assert (deep == picture).all()
    assert abs(rotated.astype(int) - picture).mean() < 2


def test_files_that_cannot_be_read_are_named_and_left_out(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = read(photos, cache="other")
    frames = [Image.fromarray(noise(seed, 32, 32)) for seed in (1, 2)]
    frames[0].save(photos / "train/ant/0.gif", save_all=True, append_images=frames[1:])
    (photos / "train/bee/05.jpg").write_text("hello", encoding="utf-8")
    (photos / "test/cat/9.jpeg").touch()
    assert equal(read(photos), before)
    assert caplog.messages == [
        f"{photos / 'train/ant/0.gif'}: several images in one file: save the one to classify: left out",
        f"{photos / 'train/bee/05.jpg'}: not a supported image: save it as JPEG or PNG: left out",
        f"{photos / 'test/cat/9.jpeg'}: an empty file: left out",
    ]


@posix
def test_links_to_nowhere_are_named_and_left_out(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (link := photos / "train/ant/link.png").symlink_to("nowhere")
    assert equal(read(photos), read(photos))
    assert caplog.messages == [f"{link}: No such file or directory: left out"] * 2


def test_files_of_other_kinds_are_ignored(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = read(photos, cache="other")
    for name in ("README.md", "train/labels.csv", "train/ant/Thumbs.db", "train/ant/notes", "test/bee/.hidden.png"):
        (photos / name).write_text("hello", encoding="utf-8")
    (photos / "train/.cache").mkdir()
    assert equal(read(photos), before)
    assert caplog.messages == []


def test_more_than_twenty_broken_files_are_counted(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(23):
        (photos / f"train/ant/broken{number:02}.jpg").touch()
    assert read(photos).train_size == 30
    assert len(caplog.messages) == 21
    assert caplog.messages[19:] == [
        f"{photos / 'train/ant/broken19.jpg'}: an empty file: left out",
        "3 more images that cannot be read are left out",
    ]


def test_other_folders_beside_train_and_test_are_reported(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("val", "extra", "more"):
        fill(photos / name)
    assert read(photos).train_size == 30
    assert caplog.messages == [
        f"{photos / name} is not read: only train and test are" for name in ("extra", "more", "val")
    ]


def remove(*names: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for name in names:
            shutil.rmtree(path / name)

    return change


def clear(*names: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for file in [file for name in names for file in (path / name).iterdir()]:
            file.unlink()

    return change


def rename(name: str, other: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / name).rename(path / other)

    return change


def damage(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for file in (path / name).iterdir():
            file.write_bytes(b"damaged")

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            remove("train", "test"),
            "{0} has no folders of classes: expected {0}{1}CLASS{1}*.jpg for two or more classes",
        ),
        (remove("train/ant", "train/bee"), "{0}{1}train has only the class cat: expected {0}{1}train{1}CLASS{1}*.jpg"),
        (clear("train/bee"), "{0}{1}train{1}bee: no image in this folder: their names end in .bmp, "),
        (clear("test/bee"), "{0}{1}test{1}bee: no image in this folder: their names end in .bmp, "),
        (damage("train/bee"), "{0}: class bee has no image to train on"),
        (
            rename("train", "Train"),
            "{0}{1}Train has folders: if it is a part of the data, name the parts train and test",
        ),
        (remove("test/ant"), "{0}: train and test have other classes: ant in one of them only"),
        (remove("train/cat", "test/ant"), "{0}: train and test have other classes: ant, cat in one of them only"),
        (remove("test/ant", "test/bee", "test/cat"), "{0}: train and test have other classes: ant, bee, cat in one of"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(
    photos: Path, change: Callable[[Path], None], message: str
) -> None:
    change(photos)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        read(photos)
    assert str(caught.value).startswith(message.format(photos, os.sep))


def test_images_of_the_test_set_that_are_all_broken_are_refused(photos: Path) -> None:
    for name in CLASSES:
        damage(f"test/{name}")(photos)
    with pytest.raises(ValueError, match=r"^[^\n]+: no image to test$"):
        read(photos)


def test_images_that_are_all_broken_are_refused(tmp_path: Path) -> None:
    fill(path := tmp_path / "photos")
    for name in CLASSES:
        damage(name)(path)
    with pytest.raises(ValueError, match=r"^[^\n]+photos: none of its images can be read$"):
        read(path)


def test_images_too_large_for_the_memory_are_refused_before_they_are_read(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        refuse_to_open(patched)
        patched.setattr(TOTAL_MEMORY, lambda: 84_000_000)
        with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
            read(photos, 512)
    assert str(caught.value) == (
        f"{photos}: 36 images of 3 × 512 × 512 bytes are 0.0 GB, more than a quarter of this machine's 0.1 GB: "
        "give a smaller --data.image_size, or see docs/scaling.md"
    )
    monkeypatch.setattr(TOTAL_MEMORY, lambda: None)  # unknown
    assert read(photos).train_size == 30


def test_images_are_read_once(photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "train/ant/05.png").write_bytes(b"damaged")
    first = read(photos)
    messages = caplog.messages.copy()
    assert len(messages) == 1
    refuse_to_open(monkeypatch, but="05.png")  # which might be readable now
    second = read(photos)
    assert equal(first, second)
    assert (first.classes, first.digests) == (second.classes, second.digests)
    assert caplog.messages == messages * 2


@pytest.mark.parametrize("change", ["changed", "touched", "added", "removed"])
def test_images_are_read_again_after_a_change(photos: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read(photos)
    file = photos / "train/ant/00.png"
    if change == "changed":
        save(noise(0, 32, 32, 3), file)
    elif change == "touched":
        os.utime(file, (0, 0))
    elif change == "added":
        save(noise(0, 32, 32, 3), file.with_name("000.png"))
    else:
        file.unlink()
    with monkeypatch.context() as patched:
        refuse_to_open(patched)
        with pytest.raises(AssertionError, match=r"\.png\n"):
            read(photos)
    assert equal(read(photos), read(photos, cache="other"))


def test_each_image_size_has_its_own_cache(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = read(photos, 8), read(photos, 16)
    refuse_to_open(monkeypatch)
    assert equal(read(photos, 8), small)
    assert equal(read(photos, 16), large)


@pytest.mark.parametrize("kind", ["empty", "truncated", "flipped"])
def test_a_damaged_cache_is_reported_and_written_again(
    photos: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = read(photos)
    (file,) = (photos.parent / "cache/folders").iterdir()
    whole = file.read_bytes()
    start, end = whole[: len(whole) // 2], whole[len(whole) // 2 :]  # between two pixels
    file.write_bytes({"empty": b"", "truncated": start, "flipped": start + bytes([end[0] ^ 1]) + end[1:]}[kind])
    assert equal(read(photos), first)
    assert caplog.messages == [f"{file} is damaged: reading the images again"]
    refuse_to_open(monkeypatch)
    assert equal(read(photos), first)


def test_a_cache_that_cannot_be_written_is_only_a_warning(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos.parent / "file").touch()
    assert equal(read(photos, cache="file"), read(photos))
    (message,) = caplog.messages
    assert message.startswith(str(photos.parent / "file" / "folders" / "photos-"))
    assert message.endswith(": the images will be read again at the next start")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names of Unicode only")
@pytest.mark.parametrize("name", ["a" * 250, os.fsdecode(b"\xff")], ids=["long", "not UTF-8"])
def test_any_name_of_a_folder_has_a_cache(
    photos: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = photos.rename(photos.with_name(name))
    first = read(path)
    refuse_to_open(monkeypatch)
    assert equal(read(path), first)
    assert caplog.messages == []


def test_digests_are_those_of_the_training_and_test_images(photos: Path, tmp_path: Path) -> None:
    train, test = read(photos).digests
    copy = tmp_path / "elsewhere/copy"
    shutil.copytree(photos, copy, copy_function=shutil.copyfile)  # with new times
    assert read(copy).digests == [train, test]
    save(noise(1_000, 30, 40, 3), copy / "test/ant/00.png")
    other = read(copy).digests
    assert other[0] == train
    assert other[1] != test
    save(noise(1_000, 30, 40, 3), copy / "train/ant/00.png")
    assert read(copy).digests[0] != train


def test_digests_depend_on_the_classes(photos: Path) -> None:
    before = read(photos).digests
    for part in ("train", "test"):
        (photos / part / "bee").rename(photos / part / "beetle")
    assert not set(read(photos).digests) & set(before)


def test_a_file_that_can_be_read_again_is_not_left_out_for_good(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UnreadableImageError("Input/output error")

    with monkeypatch.context() as context:
        context.setattr(Image, "open", fail)
        with pytest.raises(ValueError, match="none of its images can be read"):
            read(photos)
    assert read(photos).train_size == 30


def test_a_panorama_keeps_the_detail_of_its_middle(tmp_path: Path) -> None:
    pixels = np.zeros((600, 4_096, 3), np.uint8)
    pixels[:, ::2] = 255  # lines that are grey in a reduced image
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert open_image(str(tmp_path / "wide.png"), for_square=True).shape[:2] == (600, 4_096)
    assert open_image(str(tmp_path / "wide.png")).shape[:2] == (75, 512)


def test_images_in_no_folder_of_a_class_are_reported(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = read(photos, cache="other")
    shutil.copy(photos / "train/ant/00.png", photos / "train/loose.png")
    (photos / "train/__MACOSX").mkdir()
    assert equal(read(photos), before)
    assert caplog.messages == [f"{photos / 'train'}: 1 images are not read: they are in no folder of a class"]


def test_images_in_both_parts_are_reported(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(2):
        shutil.copy(photos / f"train/ant/0{number}.png", photos / f"test/bee/copy{number}.png")
    read(photos)
    assert caplog.messages == [f"{photos}: 2 test images are among the training images too"]


def test_a_folder_has_no_mirrors(photos: Path) -> None:
    read(photos).fetch("unused")
    with pytest.raises(ValueError, match=r"^mirrors are for data sets that are downloaded, .*photos is a folder$"):
        find_dataset(str(photos), mirrors=["file:///nowhere"])
