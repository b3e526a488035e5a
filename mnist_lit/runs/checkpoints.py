"""Checkpoints, opened safely: as weights and plain settings, never code."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import SEEK_END
from pathlib import Path
from pickle import UnpicklingError
from pickletools import genops
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self
from warnings import catch_warnings
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from mnist_lit.calibration import CalibratedNetwork
from mnist_lit.datasets.catalog import DATASETS, MNIST, ImageDataset, is_same
from mnist_lit.model import CNN
from mnist_lit.runs.folders import Run, run_of
from mnist_lit.system.distributed import rank_zero_print

if TYPE_CHECKING:  # this module needs no Lightning, which takes seconds to import
    from mnist_lit.classifier import DigitClassifier

__all__ = ["FULL_PRECISION", "Checkpoint", "find_output"]

FULL_PRECISION = "32-true"
REQUIRED = {
    "state_dict": dict,
    "hyper_parameters": dict,
    "datamodule_hyper_parameters": dict,
    "epoch": int,
    "global_step": int,
}
NETWORK = f"{CNN.__module__}.{CNN.__qualname__}"
ALLOWED_GLOBALS = re.compile(
    r"collections (OrderedDict|Counter)|builtins set|_codecs encode|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (Size|\w+Storage|[a-z]\w*)"
)
"""Globals that a checkpoint's pickle may name: those that make values from bytes in the file. `torch.load` allows more,
such as bytearray, which allocates gigabytes for a number."""
MAX_VALUES = 1_000_000
MAX_CLASSES = 100_000
MAX_LIST_LENGTH = 1_000
"""Of a setting."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that `fit` has written, verified and in memory."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and verify a file.

        Raises:
            OSError: if the file cannot be opened.
            ValueError: if it is something else, damaged, or would run code when loaded.
        """
        with path.open("rb") as file, catch_warnings(action="ignore"):  # torch's, about files of other programs
            try:
                content = _load(file)
                size = file.seek(0, SEEK_END)
            except Exception as error:  # unpickling foreign bytes may raise anything
                raise ValueError(f"{path} is not a complete checkpoint: give another with --ckpt_path") from error
        if not (isinstance(content, dict) and _has_required_parts(content) and _is_bounded(content, size)):
            raise ValueError(f"{path} was not written by this program's fit: give another with --ckpt_path")
        if not all(value.isfinite().all() for value in content["state_dict"].values()):
            raise ValueError(f"{path} has weights that are not finite numbers: give another with --ckpt_path")
        return cls(path, content)

    @classmethod
    def read_newest(cls, path: Path) -> Self:
        """Read a file; instead of a damaged `last.ckpt`, the newest undamaged checkpoint beside it.

        Raises:
            OSError: if the file cannot be opened.
            ValueError: if it is damaged and there is no other.
        """
        try:
            return cls.read(path)
        except ValueError as error:
            if path.name != "last.ckpt":
                raise
            damaged = error
        others = set(path.parent.glob("*.ckpt")) - {path}
        for other in sorted(others, key=lambda other: other.stat().st_mtime_ns, reverse=True):
            with suppress(ValueError):
                checkpoint = cls.read(other)
                rank_zero_print(f"{str(damaged).partition(':')[0]}: taking {other} instead")
                return checkpoint
        raise damaged

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings in it, by group: `{"model": …, "data": {"batch_size": 100, …}}`.

        Without paths and mirrors of data files: somebody else's checkpoint must not choose folders and servers. (A
        folder of images is a data set, not such a path: `Restored.may_read`.)
        """
        return _settings(self.content)

    @property
    def precision(self) -> str:
        """The precision of its training, as `Trainer.precision`; full where a checkpoint does not have it."""
        return str(self.content.get("precision", FULL_PRECISION))

    @property
    def has_folder(self) -> bool:
        """Whether it was trained on a folder of images."""
        return self.settings["data"]["dataset"] not in DATASETS

    @property
    def classes(self) -> list[str]:
        """The names of the classes that it distinguishes; their numbers if it does not name them."""
        number = self.settings["model"].get("classes", len(MNIST.classes))
        return list(_data_state(self.content).get("classes") or map(str, range(number)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the images that it was trained on, (C, H, W)."""
        channels, height, width = self.settings["model"].get("shape", MNIST.shape)
        return channels, height, width

    def was_trained_on(self, dataset: ImageDataset) -> bool:
        """Return whether a data set is that of its training, even if a folder has other images now, or another path."""
        moved = self._digests and dataset.digests and not self.has_other_images(dataset, "train")
        return bool(moved) or is_same(self.settings["data"]["dataset"], dataset.name)

    def has_other_images(self, dataset: ImageDataset, part: Literal["train", "test"]) -> bool:
        """Return whether the training or test images of a folder were others when it was trained."""
        saved, given = self._digests, dataset.digests
        if not saved or not given:
            return False
        return saved[part == "test"] != given[part == "test"]

    @property
    def trained_on(self) -> Tensor:
        """The images of folders that it was trained on, int64 (N,): see `ImageDataset.hashes`."""
        hashes: Tensor = _data_state(self.content).get("trained_on", torch.empty(0, dtype=torch.int64))
        return hashes

    def count_trained_on(self, images: Tensor, training: Tensor) -> int:
        """Return how many of some images it was trained on.

        Args:
            images: of a validation or test set, int64 (N,).
            training: images of the training set that goes with it, (M,): what is in both sets does not count.
        """
        return int((torch.isin(images, self.trained_on) & ~torch.isin(images, training)).sum())

    @property
    def _digests(self) -> Sequence[str] | None:
        digests: Sequence[str] | None = _data_state(self.content).get("digests")
        return digests

    @property
    def run(self) -> Run | None:
        """The run whose folder it is in, if any."""
        return run_of(self.path)

    @property
    def _network_weights(self) -> dict[str, Tensor]:
        """The parameters and buffers of the network, by the names that they have in it."""
        prefix, weights = "network.", self.content["state_dict"].items()
        return {name.removeprefix(prefix): value for name, value in weights if name.startswith(prefix)}

    def network(self) -> CalibratedNetwork | None:
        """Return its network and temperature, or None if only Lightning can load them, or say why they are damaged.

        That is so for other networks than `CNN`, and for trainings in less than full precision.
        """
        described = self.content.get("network")
        if self.precision != FULL_PRECISION or not isinstance(described, dict) or described.get("class") != NETWORK:
            return None
        try:
            network = CNN(**{name: self.settings["model"][name] for name in described["settings"]})
            network.load_state_dict(self._network_weights)
            return CalibratedNetwork(network, self.content["state_dict"]["temperature"].reshape(()))
        except (LookupError, TypeError, ValueError, RuntimeError, OverflowError):
            return None

    def has_same_weights(self, other: Self) -> bool:
        """Return whether the networks of two checkpoints are equal: those of the same training, which was repeated."""
        ours, theirs = self._network_weights, other._network_weights
        return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    def load_into(self, classifier: "DigitClassifier") -> None:
        """Load its weights.

        Raises:
            ValueError: if they belong to another network.
        """
        try:
            classifier.load_state_dict(self.content["state_dict"])
        except RuntimeError as error:
            raise ValueError(
                f"the weights in {self.path} do not fit the network: was a --model flag or --data.dataset changed?"
            ) from error

    def initialize(self, classifier: "DigitClassifier") -> list[str]:
        """Load the network's weights whose shapes fit, and return the names of the others, which keep their values.

        The temperature is not loaded: it was fitted to other weights.

        Raises:
            ValueError: if no parameter fits.
        """
        own, given = classifier.network.state_dict(), self._network_weights
        fitting = {
            name: given[name] for name, value in own.items() if name in given and given[name].shape == value.shape
        }
        if not fitting.keys() & dict(classifier.network.named_parameters()).keys():
            raise ValueError(
                f"no weights in {self.path} fit the network: give --init_from a checkpoint of the same network"
            )
        classifier.network.load_state_dict(own | fitting)
        return [name for name in own if name not in fitting]


def find_output(given: str | None, name: str, checkpoints: Sequence[Checkpoint]) -> Path:
    """Return the file to write: the one given, or `name` in the run folder; without a run, or for several, here."""
    run = checkpoints[0].run if len(checkpoints) == 1 else None
    return Path(given or (run.folder if run else Path()) / name)


def _load(file: BinaryIO) -> Any:
    size = file.seek(0, SEEK_END)
    with ZipFile(file) as archive:
        members = archive.infolist()
        packed = any(member.compress_type != ZIP_STORED for member in members)
        if (
            packed or sum(member.file_size for member in members) > size
        ):  # torch does not compress, but would decompress
            raise BadZipFile("more in it than its size")
        if damaged := archive.testzip():  # torch does not verify the checksums
            raise BadZipFile(damaged)
        for member in members:
            if member.filename.endswith(".pkl"):
                _check_globals(archive.read(member))
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def _check_globals(pickled: bytes) -> None:
    for opcode, name, _ in genops(pickled):
        if opcode.name == "GLOBAL" and not ALLOWED_GLOBALS.fullmatch(str(name)):
            raise UnpicklingError(name)


def _is_bounded(content: Mapping[Any, Any], size: int) -> bool:
    """Return whether the number of values is that of a training, and no tensor is larger than the file.

    Few bytes may stand for more: a list that contains another one many times, or itself; one number, expanded.
    """
    values, waiting = 0, [content]
    while waiting and values <= MAX_VALUES:
        value = waiting.pop()
        if isinstance(value, torch.Tensor) and value.nbytes > size:
            return False
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        if isinstance(parts, list | tuple | set):
            values += len(parts)
            waiting.extend(parts)
    return not waiting


def _settings(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    data = content["datamodule_hyper_parameters"].items()
    return {
        "model": content["hyper_parameters"],
        "data": {name: value for name, value in data if name not in ("data_dir", "mirrors")},
    }


def _data_state(content: dict[str, Any]) -> dict[str, Any]:
    state = content.get("MNISTDataModule")  # where Lightning saves what its `state_dict` returns
    return state if isinstance(state, dict) else {}


def _has_required_parts(content: dict[str, Any]) -> bool:
    """Return whether there are weights, and settings that are numbers, strings or short lists of them."""
    if not all(isinstance(content.get(key), kind) for key, kind in REQUIRED.items()):
        return False
    weights = content["state_dict"].items()
    settings = [value for group in _settings(content).values() for value in group.values()]
    return (
        all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights)
        and all(value is None or isinstance(value, int | float | str) or _is_short_list(value) for value in settings)
        and _describes_images(content)
    )


def _describes_images(content: dict[str, Any]) -> bool:
    """Return whether the shape of the images, the number of classes, their names and the digests are such."""
    model, state = content["hyper_parameters"], _data_state(content)
    shape, number = model.get("shape", MNIST.shape), model.get("classes", len(MNIST.classes))
    names, digests, trained_on = (state.get(name) for name in ("classes", "digests", "trained_on"))
    return (
        _is_short_list(shape)
        and [type(side) for side in shape] == [int] * 3
        and type(number) is int
        and 0 < number <= MAX_CLASSES
        and (names is None or _are_strings(names, number))
        and (digests is None or _are_strings(digests, 2))
        and (trained_on is None or (isinstance(trained_on, Tensor) and trained_on.dtype == torch.int64))
    )


def _are_strings(values: Any, number: int) -> bool:
    return isinstance(values, list) and len(values) == number and all(isinstance(value, str) for value in values)


def _is_short_list(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) <= MAX_LIST_LENGTH
        and all(isinstance(item, int | float | str) for item in value)
    )
