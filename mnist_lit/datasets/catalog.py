"""The catalog of data sets: a new one in MNIST's format is one more entry of `DATASETS`."""

from pathlib import Path

from torchvision import datasets as listed

from mnist_lit.datasets.idx import IDXDataset

__all__ = ["DATASETS", "MNIST", "find_dataset"]

MNIST = IDXDataset(
    name="MNIST",
    classes=tuple("0123456789"),
    shape=(1, 28, 28),
    train_size=60_000,
    test_size=10_000,
    mirrors=((Path(__file__).parent / "mnist").as_uri(), *listed.MNIST.mirrors),
    files=listed.MNIST.resources,
    content_md5=(
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
)
FASHION_MNIST = IDXDataset(
    name="FashionMNIST",
    classes=listed.FashionMNIST.classes,
    shape=(1, 28, 28),
    train_size=60_000,
    test_size=10_000,
    mirrors=listed.FashionMNIST.mirrors,
    files=listed.FashionMNIST.resources,
    content_md5=(
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
)
KMNIST = IDXDataset(
    name="KMNIST",
    classes=listed.KMNIST.classes,
    shape=(1, 28, 28),
    train_size=60_000,
    test_size=10_000,
    mirrors=listed.KMNIST.mirrors,
    files=listed.KMNIST.resources,
)

DATASETS = {dataset.name: dataset for dataset in (MNIST, FASHION_MNIST, KMNIST)}


def find_dataset(name: str) -> IDXDataset:
    """Return the data set of a name.

    Raises:
        ValueError: if there is none.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be {', '.join(DATASETS)}, got {name}")
    return DATASETS[name]
