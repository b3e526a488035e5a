"""A folder of images becomes a data set: its classes, pixels, test set and cache, and what is wrong with it."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import posix
from numpy.typing import NDArray
from PIL import Image

from mnist_lit.datasets.catalog import DATASETS, find_dataset
from mnist_lit.datasets.folder import FolderDataset, read_folder, total_memory
from mnist_lit.datasets.images import UnreadableImageError, open_image

CLASSES = ("cat", "ant", "bee")  # created in this order
OPEN_IMAGE, TOTAL_MEMORY = "mnist_lit.datasets.images.open_image", "mnist_lit.datasets.folder.total_memory"


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    """Return the pixels of a picture, (H, W) or (H, W, 3), of a colour and with noise of its own."""
    random = np.random.default_rng(seed)
    colour = random.integers(0, 200, shape[2:])
    return (colour + random.integers(0, 50, shape)).astype(np.uint8)


def save(pixels: NDArray[np.uint8], path: Path) -> None:
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


def test_classes_are_in_alphabetical_order_and_each_image_has_its_label_and_the_square_in_its_middle(
    photos: Path,
) -> None:
    dataset = read(photos, 30)
    assert (dataset.name, dataset.classes) == (str(photos), ["ant", "bee", "cat"])
    assert (dataset.train_size, dataset.test_size, dataset.shape) == (30, 6, (3, 30, 30))
    for train, number in ((True, 10), (False, 2)):
        pixels, labels = dataset.read("unused", train=train)
        assert (pixels.shape, pixels.dtype) == ((3 * number, 3, 30, 30), torch.uint8)
        assert (labels.tolist(), labels.dtype) == ([0] * number + [1] * number + [2] * number, torch.int64)
    for index, seed in ((0, 100), (19, 209), (20, 0)):  # the first ant, the last bee, the first cat
        assert (dataset.train[0][index].permute(1, 2, 0).numpy() == noise(seed, 30, 40, 3)[:, 5:35]).all()


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


def test_image_size_is_the_height_and_width_of_1_to_512_pixels(photos: Path) -> None:
    assert [read(photos, side).shape for side in (1, 8, 512)] == [(3, 1, 1), (3, 8, 8), (3, 512, 512)]
    for side in (-1, 0, 513):
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


def test_find_dataset_refuses_other_names(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("mnits", str(tmp_path / "file"), "~nobody-of-this-name/photos", "a" * 1_000, ""):
        with pytest.raises(ValueError, match=rf"^dataset must be MNIST, .*CIFAR10 or a folder of images, got {name}"):
            find_dataset(name)


@posix
def test_links_to_nowhere_are_named_and_left_out(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (link := photos / "train/ant/link.png").symlink_to("nowhere")
    assert equal(read(photos), read(photos))
    assert caplog.messages == [f"{link}: No such file or directory: left out"] * 2


@pytest.mark.parametrize(
    ("names", "content", "messages"),
    [
        (["README.md", "train/labels.csv", "train/ant/Thumbs.db"], "hello", []),
        (["train/ant/notes"], "hello", ["{0}: 1 file without a suffix is not read"]),
        (
            ["train/ant/0.heic", "train/bee/1.HEIC", "test/ant/a.txt"],
            "hello",
            ["{0}: 2 .heic files, 1 .txt file are not read"],
        ),
        (
            [
                *("test/bee/.hidden.png", "train/.cache/0.png", "train/lost+found/0.png", "@eaDir/ant/0.png"),
                *("train/ant/__MACOSX/0.png", "test/ant/@eaDir/0.png/THUMB_M.png", "train/bee/#recycle/deep/0.png"),
            ],
            "hello",
            [],
        ),
        (
            ["train/@eaDir/0.png", "train/$RECYCLE.BIN/0.png", "train/#1/0.png"],
            "hello",
            ["{0}/train: #1, $RECYCLE.BIN, @eaDir: not read, since @, # and $ begin the names of a system's folders"],
        ),
        (
            ["train/bee/05.jpg", "test/cat/9.jpeg"],
            "hello",
            [
                f"{{0}}/{name}: not a supported image: save it as JPEG or PNG: left out"
                for name in ("train/bee/05.jpg", "test/cat/9.jpeg")
            ],
        ),
        (
            [f"train/ant/broken{number:02}.jpg" for number in range(23)],
            "",
            [f"{{0}}/train/ant/broken{number:02}.jpg: an empty file: left out" for number in range(20)]
            + ["3 more images that cannot be read are left out"],
        ),
        (
            ["train/loose.png", "train/__MACOSX/0.png"],
            "hello",
            ["{0}/train: 1 images are not read: they are in no folder of a class"],
        ),
        (
            ["extra/ant/0.png", "notes/0.png"],
            "hello",
            [f"{{0}}/{name} is not read: only train, val and test are" for name in ("extra", "notes")],
        ),
    ],
    ids=[
        *("outside of classes", "no suffix", "other suffixes", "of a system", "of a system, as a class"),
        *("broken", "many broken", "in no class", "in no part"),
    ],
)
def test_images_that_are_not_read_are_reported_and_the_others_are_used(
    photos: Path, names: list[str], content: str, messages: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = read(photos, cache="other")
    for name in names:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text(content, encoding="utf-8")
    assert equal(read(photos), before)
    assert caplog.messages == [message.replace("/", os.sep).format(photos) for message in messages]


def test_images_in_two_parts_or_two_classes_are_reported(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(photos / "val", 3, seed=70)
    for number in range(2):
        shutil.copy(photos / f"train/bee/0{number}.png", photos / f"test/bee/copy{number}.png")
    shutil.copy(photos / "train/ant/03.png", photos / "val/bee/copy.png")
    dataset = read(photos)
    dataset.split(dataset.train[1], dataset.own_val_size, 0)
    assert caplog.messages == [
        f"{photos}: 2 test images are among the training images too",
        f"{photos}: 1 images are in more than one class",
        f"{photos}: 1 validation images are among the training images too",
    ]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_part_of_its_own_is_the_validation_set(photos: Path, name: str) -> None:
    without = read(photos)
    fill(photos / name, 3, seed=70)
    dataset = read(photos)
    assert (dataset.train_size, dataset.own_val_size, dataset.test_size) == (39, 9, 6)
    assert dataset.digests
    assert without.digests
    assert (dataset.digests[0] != without.digests[0], dataset.digests[1]) == (True, without.digests[1])
    train, val = dataset.split(dataset.train[1], 9, 0)
    assert torch.equal(dataset.train[0][train], without.train[0])
    assert sorted(val) == list(range(30, 39)) != val, "shuffled, so that a few batches have all classes"
    shutil.rmtree(photos / "test")
    held_out = read(photos)
    assert (held_out.train_size, held_out.own_val_size, held_out.test_size) == (36, 9, 3), "a tenth of train"
    assert torch.equal(held_out.train[0][-9:], dataset.train[0][-9:])


@posix
def test_names_that_differ_only_in_the_composition_of_accents_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    fill(path := tmp_path / "photos")
    (path / "cat").rename(path / decomposed)
    assert read(path).classes == ["ant", "bee", composed]
    if sys.platform == "linux":  # elsewhere, they may be one folder
        save(noise(77, 32, 32, 3), path / composed / "one more.png")
        dataset = read(path)
        assert (dataset.classes, dataset.train_size + dataset.test_size) == (["ant", "bee", composed], 31)


TRAIN, TEST = ([f"{part}/{name}" for name in CLASSES] for part in ("train", "test"))


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        ("remove", ["train", "test"], "{0} has no folders of classes: expected {0}/CLASS/*.jpg for two or more"),
        ("remove", TRAIN[1:], "{0}/train has only the class cat: expected {0}/train/CLASS/*.jpg for two or more"),
        ("empty", ["train/bee"], "{0}/train/bee: no image in this folder: their names end in .apng, "),
        ("empty", ["test/bee"], "{0}/test/bee: no image in this folder: their names end in .apng, "),
        ("damage", ["train/bee"], "{0}: class bee has no image to train on"),
        ("damage", TEST, "{0}: no image to test\n"),
        ("damage", [*TRAIN, *TEST], "{0}: none of its images to train on can be read\n"),
        ("remove", ["test/ant"], "{0}: there is a class ant in train, and none in test"),
        ("remove", ["train/cat"], "{0}: there is a class cat in test, and none in train"),
        ("flatten", ["test"], "{0}/test: its images are in no folder of a class: expected {0}/test/CLASS/*.jpg"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(
    photos: Path, change: str, names: list[str], message: str
) -> None:
    for folder in [photos / name for name in names]:
        if change == "remove":
            shutil.rmtree(folder)
        elif change == "flatten":
            for name in CLASSES:
                (folder / name / "00.png").rename(folder / f"{name}.png")
                shutil.rmtree(folder / name)
        else:
            for file in folder.iterdir():
                file.unlink() if change == "empty" else file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        read(photos)
    assert f"{caught.value}\n".startswith(message.replace("/", os.sep).format(photos))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, Train is train")
@pytest.mark.parametrize(
    ("train", "test"),
    [
        *(("training_set", "test_set"), ("train_images", "test_images"), ("seg_train", "seg_test"), ("Train", "Test")),
        *(("TRAINING", "TESTING"), ("Training", "val"), ("images", "test"), ("Train", "other")),
    ],
)
def test_parts_by_another_name_are_no_classes(photos: Path, train: str, test: str) -> None:
    (photos / "train").rename(photos / train)
    (photos / "test").rename(photos / test)
    with pytest.raises(ValueError, match=r"not classes, name them train and test$") as caught:
        read(photos)
    assert "\n" not in str(caught.value)
    shutil.rmtree(photos / test / "bee")  # whose images would be those of another class
    with pytest.raises(ValueError, match=r"not classes, name them train and test$"):
        read(photos)


@pytest.mark.parametrize("name", ["Testing", "validate", "holdout", "test2"])
def test_a_part_by_another_name_beside_train_is_not_ignored(photos: Path, name: str) -> None:
    """A tenth of the training images would be tested instead."""
    (photos / "test").rename(photos / name)
    with pytest.raises(ValueError, match=rf"{name}: if this is a part of the data, name it val or test"):
        read(photos)


def test_parts_without_classes_are_no_classes(tmp_path: Path) -> None:
    for name in ("train", "test"):
        save(noise(0, 32, 32, 3), tmp_path / name / "0.png")
    with pytest.raises(ValueError, match=r"not classes, name them train and test$"):
        read(tmp_path)


def test_classes_may_have_folders(tmp_path: Path) -> None:
    """Even by the same names, if their own names are not those of parts."""
    for name in ("cat", "valley", "test tube"):
        for year in ("2023", "2024"):
            for number in range(5):
                save(noise(number, 32, 32, 3), tmp_path / "photos" / name / year / f"{number}.png")
    assert read(tmp_path / "photos").classes == ["cat", "test tube", "valley"]


def test_a_folder_within_a_folder_is_named(photos: Path) -> None:
    with pytest.raises(ValueError, match="has only the class photos") as caught:
        read(photos.parent)
    assert str(caught.value).endswith(f"for two or more, or give {photos}")


@posix
@pytest.mark.parametrize("name", ["new\nline", "tab\tname", "\x1b[31mred", os.fsdecode(b"\xff")])
def test_a_name_that_cannot_be_shown_is_refused_at_once(photos: Path, name: str) -> None:
    if sys.platform == "linux" or name.isascii():
        (photos / "train/ant").rename(photos / "train" / name)
        with pytest.raises(ValueError, match=r"^\S+/train: rename the folder '.*\\.*': its name has char"):
            read(photos)


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


def test_each_image_size_and_fit_has_its_own_cache(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(noise(3, 20, 40, 3), next((photos / "train").rglob("*.png")))
    small, large = read(photos, 8), read(photos, 16)
    padded = read_folder(str(photos), 16, photos.parent / "cache", "pad")
    assert not equal(padded, large)
    refuse_to_open(monkeypatch)
    assert equal(read(photos, 8), small)
    assert equal(read(photos, 16), large)
    assert equal(read_folder(str(photos), 16, photos.parent / "cache", "pad"), padded)


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


def test_digests_are_those_of_the_classes_and_the_training_and_test_images(photos: Path, tmp_path: Path) -> None:
    def digests(path: Path) -> list[str]:
        return [*(read(path).digests or [])]

    train, test = digests(photos)
    copy = tmp_path / "elsewhere/copy"
    shutil.copytree(photos, copy, copy_function=shutil.copyfile)  # with new times
    assert digests(copy) == [train, test]
    save(noise(1_000, 30, 40, 3), copy / "test/ant/00.png")
    other = digests(copy)
    assert other[0] == train
    assert other[1] != test
    save(noise(1_000, 30, 40, 3), copy / "train/ant/00.png")
    assert digests(copy)[0] != train
    for part in ("train", "test"):
        (photos / part / "bee").rename(photos / part / "beetle")
    assert not {train, test} & {*digests(photos)}


def test_a_file_that_can_be_read_again_is_not_left_out_for_good(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UnreadableImageError("Input/output error")

    with monkeypatch.context() as context:
        context.setattr(Image, "open", fail)
        with pytest.raises(ValueError, match="none of its images to train on can be read"):
            read(photos)
    assert read(photos).train_size == 30


def test_a_panorama_keeps_the_detail_of_its_middle(tmp_path: Path) -> None:
    pixels = np.zeros((600, 4_096, 3), np.uint8)
    pixels[:, ::2] = 255  # lines that are grey in a reduced image
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert open_image(str(tmp_path / "wide.png"), for_square=True).shape[:2] == (600, 4_096)
    assert open_image(str(tmp_path / "wide.png")).shape[:2] == (75, 512)


def test_total_memory_is_plausible() -> None:
    assert 1e9 < (total_memory() or 0) < 1e14


@posix
def test_total_memory_is_none_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", refuse)
    assert total_memory() is None
