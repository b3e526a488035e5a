"""Checkpoints, opened safely: as weights and plain settings, never code."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO, Self
from warnings import catch_warnings
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from mnist_lit.classifier import DigitClassifier
from mnist_lit.datasets.catalog import MNIST, is_same
from mnist_lit.datasets.dataset import MAX_CLASSES, ImageDataset
from mnist_lit.runs.folders import Run, run_of
from mnist_lit.runs.unpickling import MAX_VALUES, check_pickle
from mnist_lit.system.output import say

__all__ = ["FULL_PRECISION", "Checkpoint"]

FULL_PRECISION = "32-true"
REQUIRED = {
    "state_dict": dict,
    "hyper_parameters": dict,
    "datamodule_hyper_parameters": dict,
    "epoch": int,
    "global_step": int,
}
EARLIER = {"image_size": None, "fit": "crop"}
"""Settings of the images that earlier checkpoints lack, with the values that were used then."""
PLAIN = int | float | str
COMPILED = "_orig_mod."
"""Part of the names of a compiled network's weights."""
MAX_LIST_LENGTH = 1_000
"""Length of a setting that is a list."""
MAX_PARAMETERS = 10_000
"""Number of parameter tensors of a network."""
MAX_ACTIVATIONS = 500_000_000
"""Largest number of outputs of all layers for one image, 2 GB: a few bytes of settings could ask for any number."""


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
        checkpoint = cls(path, content)
        if not (isinstance(content, dict) and _has_required_parts(checkpoint) and _is_bounded(content, size)):
            raise ValueError(f"{path} was not written by this program's fit: give another with --ckpt_path")
        if not _builds_bounded_network(content["hyper_parameters"], size):
            raise ValueError(f"{path} describes a network that is larger than the file: give another with --ckpt_path")
        if not all(value.isfinite().all() for value in {id(v): v for v in content["state_dict"].values()}.values()):
            raise ValueError(f"{path} has weights that are not finite numbers: give another with --ckpt_path")
        return checkpoint

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
                say(f"{str(damaged).partition(':')[0]}: taking {other} instead")
                return checkpoint
        raise damaged

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings in it, by group: `{"model": …, "data": {"batch_size": 100, …}}`.

        Without paths and mirrors of data files: somebody else's checkpoint must not choose folders and servers.
        """
        data = self.content["datamodule_hyper_parameters"].items()
        return {
            "model": self.content["hyper_parameters"],
            "data": EARLIER | {name: value for name, value in data if name not in ("data_dir", "mirrors")},
        }

    @property
    def data_state(self) -> dict[str, Any]:
        """What the data module's `state_dict` returned."""
        state = self.content.get("MNISTDataModule")  # where Lightning saves it
        return state if isinstance(state, dict) else {}

    @property
    def precision(self) -> str:
        """The precision of its training, as `Trainer.precision`; full where a checkpoint does not have it."""
        return str(self.content.get("precision", FULL_PRECISION))

    @property
    def classes(self) -> list[str]:
        """The names of the classes that it distinguishes; their numbers if it does not name them."""
        number = self.settings["model"].get("classes", len(MNIST.classes))
        return list(self.data_state.get("classes") or map(str, range(number)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the images that it was trained on, (C, H, W)."""
        channels, height, width = self.settings["model"].get("shape", MNIST.shape)
        return channels, height, width

    @property
    def digests(self) -> Sequence[str] | None:
        """Checksums of the training and the test images of a folder, see `ImageDataset`."""
        digests: Sequence[str] | None = self.data_state.get("digests")
        return digests

    def was_trained_on(self, dataset: ImageDataset) -> bool:
        """Return whether a data set is that of its training, even if a folder has another path now."""
        same_images = self.digests is not None and dataset.digests == self.digests
        return same_images or is_same(self.settings["data"]["dataset"], dataset.name)

    def check_images(self, dataset: ImageDataset) -> None:
        """Check that a folder of images is as it was in the training, if it is the same folder.

        Raises:
            ValueError: if images were changed, added or removed: a test image may have been trained on then.
        """
        if self.digests and dataset.digests != self.digests and self.was_trained_on(dataset):
            raise ValueError(
                f"the images in {dataset.name} have changed since the training of {self.path}: undo the change, or "
                "start a new run"
            )

    @property
    def run(self) -> Run | None:
        """The run whose folder it is in, if any."""
        return run_of(self.path)

    def load_into(self, classifier: DigitClassifier) -> None:
        """Load its weights.

        Raises:
            ValueError: if they belong to another network.
        """
        try:
            classifier.load_state_dict(_renamed(self.content["state_dict"], classifier.state_dict()))
        except RuntimeError as error:
            raise ValueError(
                f"the weights in {self.path} do not fit the network: was a --model flag or --data.dataset changed?"
            ) from error

    def check_resumable(self, classifier: DigitClassifier) -> None:
        """Check that there is an optimizer state, and that it fits the network: torch trusts the shapes in it.

        Raises:
            ValueError: if there is none, or it does not fit.
        """
        states = self.content.get("optimizer_states")
        if not states:
            raise ValueError(f"{self.path} has weights only: for a new run that starts from them, give --init_from")
        parameters = [*classifier.parameters()]
        try:
            fits = all(_fits(state, parameters) for state in states)
        except (TypeError, KeyError, AttributeError):  # other values than torch's
            fits = False
        if not fits:
            raise ValueError(f"the optimizer's state in {self.path} does not fit the network: give another checkpoint")

    def initialize(self, classifier: DigitClassifier, classes: Sequence[str]) -> tuple[list[str], list[str]]:
        """Load the network's weights whose shapes fit; in the last layer, those of classes of the same names.

        The temperature is not loaded: it was fitted to other weights.

        Args:
            classifier: the classifier that gets the weights.
            classes: the names of its classes.

        Returns:
            The names of the weights that were not loaded, and the classes whose rows of the last layer were not.

        Raises:
            ValueError: if no parameter fits.
        """
        own, prefix = classifier.network.state_dict(), "network."
        weights = self.content["state_dict"].items()
        given = {name.removeprefix(prefix): value for name, value in weights if name.startswith(prefix)}
        given = _renamed(given, own)
        numbers = {name: number for number, name in enumerate(self.classes)}
        same = [name for name in classes if name in numbers]
        mixed = []
        if [*classes] != self.classes:
            last = next(reversed(own)).rpartition(".")[0]
            mixed = [
                n for n, value in own.items() if n.rpartition(".")[0] == last and value.shape[:1] == (len(classes),)
            ]
        for name in mixed:
            shape = (len(self.classes), *own[name].shape[1:])
            if (value := given.pop(name, None)) is not None and value.shape == shape and same:
                given[name] = own[name].clone()
                given[name][[[*classes].index(found) for found in same]] = value[[numbers[found] for found in same]]
        fitting = {
            name: given[name] for name, value in own.items() if name in given and given[name].shape == value.shape
        }
        if not fitting.keys() & dict(classifier.network.named_parameters()).keys():
            raise ValueError(
                f"no weights in {self.path} fit the network: give --init_from a checkpoint of the same network"
            )
        classifier.network.load_state_dict(own | fitting)
        new = [name for name in classes if name not in numbers] if fitting.keys() & {*mixed} else []
        return [name for name in own if name not in fitting], new


def _fits(state: Mapping[str, Any], parameters: Sequence[Tensor]) -> bool:
    """Return whether the state of an optimizer has tensors of the shapes of the network's parameters, or numbers."""
    order = [number for group in state["param_groups"] for number in group["params"]]
    # torch itself refuses other numbers of parameters. An optimizer with several groups, of the user's own, may have
    # them in another order.
    if len(state["param_groups"]) > 1 or len(order) != len(parameters):
        return True
    return all(
        value.shape in {parameter.shape, ()}
        for number, parameter in zip(order, parameters, strict=True)
        for value in state["state"].get(number, {}).values()
        if isinstance(value, Tensor)
    )


def _renamed(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names of a network's own, to which `torch.compile` adds a part."""
    names = {name.replace(COMPILED, ""): name for name in own}
    return {names.get(name.replace(COMPILED, ""), name): value for name, value in weights.items()}


def _load(file: BinaryIO) -> Any:
    size = file.seek(0, SEEK_END)
    file.seek(0)
    starts_as_zip = file.read(4) == b"PK\3\4"  # otherwise, torch would take the file for one of an old format
    with ZipFile(file) as archive:
        members = archive.infolist()
        names = {member.filename.lower() for member in members}  # torch ignores the case
        first = min(member.header_offset for member in members)
        if not starts_as_zip or first or len(names) < len(members):
            raise BadZipFile("torch could find other members in it than Python does")
        packed = any(member.compress_type != ZIP_STORED for member in members)  # which torch would unpack
        if packed or sum(member.file_size for member in members) > size:
            raise BadZipFile("more in it than its size")
        if damaged := archive.testzip():  # torch does not verify the checksums
            raise BadZipFile(damaged)
        for member in members:
            if member.filename.lower().endswith(".pkl"):
                check_pickle(archive.read(member))
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def _is_bounded(content: Mapping[Any, Any], size: int) -> bool:
    """Return whether the number of values is that of a training, and the tensors are about as large as the file.

    A small file may stand for far more: a list that contains another one many times, or itself, or one number that is
    expanded to a large tensor.
    """
    values, waiting, tensors = 0, [content], dict[int, int]()
    while waiting and values <= MAX_VALUES:
        value = waiting.pop()
        if isinstance(value, Tensor):
            tensors[id(value)] = value.nbytes
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        if isinstance(parts, list | tuple | set):
            values += len(parts)
            waiting.extend(parts)
    return not waiting and sum(tensors.values()) <= 2 * size  # some may share their memory


def _builds_bounded_network(settings: Mapping[str, Any], size: int) -> bool:
    """Return whether the network of some settings is about as large as the weights in a file of `size` bytes.

    It is built on the meta device, without memory. Settings that build no network pass: they fail where it is built.
    """
    registered = activations = 0

    def register(_module: nn.Module, _name: str, _parameter: nn.Parameter | None) -> None:
        nonlocal registered
        if (registered := registered + 1) > MAX_PARAMETERS:
            raise MemoryError

    def count(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal activations
        activations += output.numel() if isinstance(output, Tensor) else 0

    hook = register_module_parameter_registration_hook(register)
    try:
        with torch.device("meta"), catch_warnings(action="ignore"):
            network = DigitClassifier(**settings).network.eval()
    except MemoryError:
        return False
    except Exception as error:  # noqa: BLE001  # settings of another version may raise anything
        return not _is_overflow(error)
    finally:
        hook.remove()
    for module in network.modules():
        module.register_forward_hook(count)
    try:
        network(torch.zeros(1, *settings.get("shape", MNIST.shape), dtype=torch.uint8, device="meta"))
    except Exception as error:  # noqa: BLE001  # a network of the user's own may need real numbers
        if _is_overflow(error):
            return False
    weights = sum(parameter.nbytes for parameter in network.parameters())
    return weights <= 2 * size and activations <= MAX_ACTIVATIONS  # weights may be stored in half precision


def _is_overflow(error: Exception) -> bool:
    """Return whether torch could not even count the numbers in a tensor."""
    return "overflow" in str(error).lower()


def _has_required_parts(checkpoint: Checkpoint) -> bool:
    """Return whether there are weights, settings that are numbers, strings or short lists, and classes of images."""
    if not all(isinstance(checkpoint.content.get(key), kind) for key, kind in REQUIRED.items()):
        return False
    weights, model = checkpoint.content["state_dict"].items(), checkpoint.settings["model"]
    settings = [value for group in checkpoint.settings.values() for value in group.values()]
    shape, number = model.get("shape", MNIST.shape), model.get("classes", len(MNIST.classes))
    names, digests = (checkpoint.data_state.get(name) for name in ("classes", "digests"))
    return (
        all(isinstance(name, str) and isinstance(value, Tensor) for name, value in weights)
        and all(value is None or isinstance(value, PLAIN) or _is_short_list(value) for value in settings)
        and _is_short_list(shape)
        and [type(side) for side in shape] == [int] * 3
        and type(number) is int
        and 0 < number <= MAX_CLASSES
        and (names is None or _are_strings(names, number))
        and (digests is None or _are_strings(digests, 2))
    )


def _are_strings(values: Any, number: int) -> bool:
    return isinstance(values, list) and len(values) == number and all(isinstance(value, str) for value in values)


def _is_short_list(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) > MAX_LIST_LENGTH:
        return False
    return all(isinstance(item, PLAIN) for item in value)
