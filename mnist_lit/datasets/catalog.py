"""The catalog of data sets: a new one in MNIST's format is one more entry of `DATASETS`."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from mnist_lit.datasets.cifar import CIFARDataset
from mnist_lit.datasets.dataset import Fit, ImageDataset, Kind
from mnist_lit.datasets.idx import IDXDataset
from mnist_lit.system.errors import printable

__all__ = ["DATASETS", "FASHION_MNIST", "MNIST", "find_dataset", "is_same", "kind_of", "public_name"]

log = logging.getLogger(__name__)

MNIST = IDXDataset(
    name="MNIST",
    kind="digits",
    classes=tuple("0123456789"),
    mirrors=(
        (Path(__file__).parent / "mnist").as_uri(),
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    files=(
        ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
)
FASHION_MNIST = IDXDataset(
    name="FashionMNIST",
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    files=(
        ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
)
KMNIST = IDXDataset(
    name="KMNIST",
    classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    files=(
        ("train-images-idx3-ubyte.gz", "bdb82020997e1d708af4cf47b453dcf7"),
        ("train-labels-idx1-ubyte.gz", "e144d726b3acfaa3e44228e80efcd344"),
        ("t10k-images-idx3-ubyte.gz", "5c965bf0a639b31b8f53240b1b52f4d7"),
        ("t10k-labels-idx1-ubyte.gz", "7320c461ea6c1c855c0b718fb2a4b134"),
    ),
)

CIFAR10 = CIFARDataset(
    name="CIFAR10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    shape=(3, 32, 32),
    train_size=50_000,
    test_size=10_000,
    files=[("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")],
    train_files=[f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)],
    test_files=["cifar-10-batches-bin/test_batch.bin"],
    mirrors=("https://www.cs.toronto.edu/~kriz",),
)

DATASETS = {dataset.name: dataset for dataset in (MNIST, FASHION_MNIST, KMNIST, CIFAR10)}


def find_dataset(
    name: str,
    image_size: int | None = None,
    cache: str | Path = "data",
    mirrors: Sequence[str] | None = None,
    fit: Fit = "crop",
) -> ImageDataset:
    """Return the data set of a name in the catalog, or that in a folder of images (see `read_folder`).

    A size, a cache and `fit` are for folders only, and mirrors for the catalog only.

    Raises:
        ValueError: if there is neither, or the folder cannot be used.
    """
    if any("@" in mirror.partition("://")[2].partition("/")[0] for mirror in mirrors or ()):
        raise ValueError("mirrors: a user name or password in a URL is not supported: put the files into data_dir")
    if fit not in get_args(Fit):
        raise ValueError(f"fit must be crop or pad, got {fit}")
    if name in DATASETS:
        if image_size is not None:
            raise ValueError(f"image_size is for folders of images: those of {name} have a fixed size, leave it out")
        if fit != "crop":
            raise ValueError(f"fit is for folders of images: those of {name} are square, leave it out")
        if os.path.isdir(name) and Path(name).resolve() != Path(cache, name).resolve():  # noqa: PTH112  # as below
            log.warning("%s is the data set of this name; for the folder of images, give .%s%s", name, os.sep, name)
        return DATASETS[name]
    if not os.path.isdir(folder := os.path.expanduser(name)):  # noqa: PTH111, PTH112  # a Path raises for some names
        reason = "is a file" if os.path.exists(folder) else "does not exist"  # noqa: PTH110  # as above
        known = f"dataset must be {', '.join(DATASETS)} or a folder of images, got {name}"
        raise ValueError(f"{known}: {os.path.abspath(folder)} {reason}")  # noqa: PTH100
    if mirrors:
        raise ValueError(f"mirrors are for data sets that are downloaded, {name} is a folder")
    from mnist_lit.datasets.folder import read_folder  # here: the data sets of the catalog decode no pictures

    return read_folder(name, image_size, cache, fit)


def is_same(name: str, other: str) -> bool:
    """Return whether two names are of the same data set: in the catalog, or of the same folder."""
    if name == other or name in DATASETS or other in DATASETS:
        return name == other
    return os.path.realpath(os.path.expanduser(name)) == os.path.realpath(os.path.expanduser(other))  # noqa: PTH111


def public_name(name: str) -> str:
    """Return the name of a data set, that of a folder without its path, which belongs to a machine."""
    return name if name in DATASETS else printable(Path(name).resolve().name)


def kind_of(name: str) -> Kind:
    """Return what the images of a data set show: those of a folder are taken for photographs."""
    return DATASETS[name].kind if name in DATASETS else "photographs"
