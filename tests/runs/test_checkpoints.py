"""Checkpoints are read as weights and plain settings, or refused; no code in them is run."""

import math
import os
import pickle
import shutil
import tracemalloc
import warnings
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from conftest import stock_trainer
from PIL import Image
from test_properties import pickle_call, repacked

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.system.values import plain


@pytest.fixture(scope="module")
def checkpoint(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of zero training steps, saved by Lightning."""
    path = tmp_path_factory.mktemp("checkpoint") / "my.ckpt"
    trainer = stock_trainer(path.parent, max_steps=0)
    trainer.fit(DigitClassifier(channels=[4], learning_rate=0.5), MNISTDataModule(batch_size=7, data_dir=str(data_dir)))
    trainer.save_checkpoint(path)
    return path


def test_checkpoint_has_the_settings_of_model_and_data_but_no_data_dir_and_mirrors(checkpoint: Path) -> None:
    content = Checkpoint.read(checkpoint).content
    content["datamodule_hyper_parameters"] |= {"data_dir": "/nowhere", "mirrors": ["http://127.0.0.1:9/mnist"]}
    settings = Checkpoint(checkpoint, content).settings
    expected = {
        "batch_size": 7,
        "val_size": 5_000,
        "split_seed": 0,
        "dataset": "MNIST",
        "image_size": None,
        "fit": "crop",
    }
    assert settings["data"] == expected
    del content["datamodule_hyper_parameters"]["fit"]
    assert Checkpoint(checkpoint, content).settings["data"] == expected, "an earlier version cropped"
    assert settings["model"] == dict(DigitClassifier(channels=[4], learning_rate=0.5).hparams)


def test_checkpoint_has_the_classes_and_shape_of_the_images(checkpoint: Path) -> None:
    read = Checkpoint.read(checkpoint)
    assert (read.classes, read.shape) == (list("0123456789"), (1, 28, 28))
    nameless = Checkpoint(checkpoint, read.content | {"MNISTDataModule": {}})
    assert nameless.classes == read.classes


class Malicious:
    """Creates a folder if it is unpickled by `pickle.load`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("trap",)


def saved(content: Any) -> bytes:
    torch.save(content, file := BytesIO())
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        bytes(10_000),
        b"<!doctype html><title>404</title>",
        b"(a",
        b"model:\n  channels: [32]\n",
        b"\x80\x02}q\x00(X\x01\x00\x00\x00au\xff.",
        saved({})[:-100],
        pickle.dumps(Malicious()),
        saved({"state_dict": Malicious()}),
        b"",
    ],
    ids=["zeros", "page", "text", "yaml", "flipped", "truncated", "pickle", "torch", "empty"],
)
def test_file_that_is_not_a_checkpoint_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # must not matter
    (path := Path("other.ckpt")).write_bytes(content)
    with pytest.raises(ValueError, match=r"other.ckpt is not a complete checkpoint"):
        Checkpoint.read(path)
    assert not Path("trap").exists()


def test_state_dict_alone_is_refused(tmp_path: Path) -> None:
    torch.save(DigitClassifier().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights.pt was not written by this program's fit"):
        Checkpoint.read(tmp_path / "weights.pt")


def test_flipped_bit_is_detected_or_harmless(checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    weights = Checkpoint.read(checkpoint).content["state_dict"]
    for offset in range(0, len(content), len(content) // 50):
        damaged = bytearray(content)
        damaged[offset] ^= 1
        (path := tmp_path / "other.ckpt").write_bytes(damaged)
        try:
            read = Checkpoint.read(path).content["state_dict"]
        except ValueError:
            continue
        assert all(torch.equal(value, weights[name]) for name, value in read.items())


@pytest.mark.parametrize("kind", ["data/0", "version", "builtins\nbytearray", "torch\nTensor", "torch\nFloatTensor"])
def test_decompression_and_allocation_bombs_are_refused_unread(checkpoint: Path, kind: str, tmp_path: Path) -> None:
    if "\n" in kind:
        content = repacked(checkpoint.read_bytes(), "data.pkl", pickle_call(kind, 2**31 - 1))
    else:
        content = repacked(checkpoint.read_bytes(), kind, bytes(100_000_000), ZIP_DEFLATED)
    (path := tmp_path / "other.ckpt").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"other.ckpt is not a complete checkpoint"):
        Checkpoint.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("kind", ["prefix", "another case", "twice"])
def test_an_archive_in_which_torch_could_find_other_members_is_refused(
    checkpoint: Path, kind: str, tmp_path: Path
) -> None:
    """Torch takes what does not begin as a zip file for its old format, and ignores the case of names."""
    content, path = checkpoint.read_bytes(), tmp_path / "other.ckpt"
    if kind == "prefix":
        path.write_bytes(pickle.dumps(Malicious()) + content)
    else:
        path.write_bytes(content)
        with ZipFile(path, "a") as archive, warnings.catch_warnings(action="ignore"):
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            archive.writestr(name.upper() if kind == "another case" else name, pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match=r"other.ckpt is not a complete checkpoint"):
        Checkpoint.read(path)


def nested(depth: int) -> list[Any]:
    """Return a list of 10**depth numbers, in the memory of 10 * depth."""
    values: list[Any] = [1]
    for _ in range(depth):
        values = [values] * 10
    return values


WEIGHTS = torch.zeros(3_000)
"""Views of it are tensors of their own: together, many are larger than any file."""
FOREIGN = [
    {"state_dict": {f"network.{number}": WEIGHTS[:] for number in range(300)}},
    *({key: "other"} for key in ("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "epoch")),
    {"state_dict": {"network.fc.bias": torch.zeros(1).expand(10**13)}},
    {"state_dict": {1: torch.zeros(1)}},
    {"state_dict": {"network.fc.bias": 1}},
    *({"hyper_parameters": {"channels": value}} for value in (nested(1), [1] * 1_001)),
    *({"hyper_parameters": {"classes": value}} for value in (10**10, 20_000, 0, "ten")),
    *({"hyper_parameters": {"shape": value}} for value in ([1, 28], 28, [1.0, 28, 28])),
    {"datamodule_hyper_parameters": {"dataset": {}}},
    *({"MNISTDataModule": {"classes": value}} for value in (["a", "b"], list(range(10)))),
    *({"MNISTDataModule": {"digests": value}} for value in ("ab", ["a", 1])),
]
UNFOLDING = [{"hyper_parameters": {"channels": nested(12)}}, {"optimizer_states": nested(12)}]
LARGER = [
    *({"channels": value} for value in ([1_000_000], [10**11], [10**30], [4_000, 4_000])),
    {"convolutions": [10**9]},
    {"kernel_sizes": [10**6 + 1]},
    {"padding": [10_000], "pooling": [20_000]},
    {"padding": [10**9], "pooling": [10**9]},
    {"padding": [10**9], "pooling": [1]},
    {"channels": [1] * 1_000, "pooling": [1] * 1_000, "convolutions": [1_000] * 1_000},
    {"channels": [10] * 400, "pooling": [1] * 400, "shape": [1, 1_000, 1_000]},
    *({"shape": value} for value in ([1, 10**6, 10**6], [10**9, 28, 28], [10**18, 10**18, 10**18])),
]
INFINITE = [{"state_dict": {"network.fc.bias": torch.full([10], value)}} for value in (math.nan, math.inf)]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        *((changed, "was not written by this program's fit") for changed in FOREIGN),
        *((changed, "is not a complete checkpoint") for changed in UNFOLDING),
        *(
            ({"hyper_parameters": changed, "MNISTDataModule": None}, "describes a network that is larger than the file")
            for changed in LARGER
        ),
        *((changed, "has weights that are not finite numbers") for changed in INFINITE),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_a_checkpoint_that_cannot_be_used_is_refused_quickly_with_the_reason(
    checkpoint: Path, changed: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    content = Checkpoint.read(checkpoint).content
    for key, value in changed.items():
        content[key] = content[key] | value if isinstance(value, dict) and key in content else value
    torch.save(content, path := tmp_path / "other.ckpt")
    start = monotonic()
    with pytest.raises(ValueError, match=rf"other.ckpt {reason}"):
        Checkpoint.read(path)
    assert monotonic() - start < 20


@pytest.mark.parametrize("change", ["none", "shape", "step", "no group", "no dictionary", "groups of a user's own"])
def test_an_optimizer_state_that_does_not_fit_is_not_resumed(checkpoint: Path, change: str) -> None:
    """Adam's fused kernel writes beyond the end of a tensor that is too small."""
    read, classifier = Checkpoint.read(checkpoint), DigitClassifier(channels=[4])
    optimizer = torch.optim.Adam(classifier.parameters(), fused=True)
    classifier(torch.zeros(1, 1, 28, 28)).sum().backward()
    optimizer.step()
    state: dict[str, Any] = optimizer.state_dict()
    read.content["optimizer_states"] = [state]
    if change == "shape":
        state["state"][2]["exp_avg"] = torch.zeros(1)
    elif change == "step":
        state["state"][0]["step"] = torch.zeros(0)
    elif change == "no group":
        del state["param_groups"]
    elif change == "no dictionary":
        state["state"][1] = 3
    elif change == "groups of a user's own":
        state["param_groups"] = [{"params": [1, 2]}, {"params": [0, 3]}]
    if change in {"none", "groups of a user's own"}:
        read.check_resumable(classifier)
        return
    with pytest.raises(ValueError, match=r"^the optimizer's state in .*my.ckpt does not fit the network"):
        read.check_resumable(classifier)


@pytest.mark.parametrize("compiled", ["trained", "now", "both"])
def test_weights_of_a_compiled_network_are_those_of_the_network(checkpoint: Path, compiled: str) -> None:
    read, classifier = Checkpoint.read(checkpoint), DigitClassifier(channels=[4])
    expected = read.content["state_dict"]["network.layer1.0.weight"]
    if compiled != "now":
        weights = read.content["state_dict"]
        read.content["state_dict"] = {name.replace("network.", "network._orig_mod."): weights[name] for name in weights}
    if compiled != "trained":
        classifier.network = torch.compile(classifier.network)  # type: ignore[assignment]
    read.load_into(classifier)
    assert torch.equal(dict(classifier.named_parameters())[next(iter(dict(classifier.named_parameters())))], expected)
    other = DigitClassifier(channels=[4])
    assert read.initialize(other, read.classes) == ([], [])
    assert torch.equal(other.state_dict()["network.layer1.0.weight"], expected)


def test_settings_of_numpy_ranges_and_paths_are_saved_as_plain_values(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        for name in ("cat", "dog"):
            Path("photos", name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 20 * number).save(Path("photos", name, f"{number}.png"))
    model = {
        "channels": range(4, 12, 4),
        "padding": (np.int64(1), 1),
        "betas": np.array([0.9, 0.99]),
        "learning_rate": np.logspace(-3, -2, 2)[0],
        "dropout": np.float32(0.5),
    }
    data: dict[str, Any] = {
        "dataset": Path("photos"),
        "image_size": np.int64(8),
        "crop": np.uint8(1),
        "batch_size": np.int64(5),
        "val_size": np.int32(4),
    }
    module = MNISTDataModule(**data, data_dir=str(data_dir))
    trainer = stock_trainer(tmp_path, max_steps=0)
    trainer.fit(DigitClassifier(shape=module.dataset.shape, classes=2, **model), module)
    trainer.save_checkpoint("my.ckpt")
    settings = Checkpoint.read(Path("my.ckpt")).settings
    for group, given in (("model", model), ("data", data)):
        for name, value in given.items():
            assert str(settings[group][name]) == str(value if isinstance(value, Path) else plain(value))
    assert DigitClassifier.load_from_checkpoint("my.ckpt", weights_only=True).hparams.keys() == settings["model"].keys()


@pytest.mark.parametrize("value", [object(), b"4", [torch.float32]])
def test_settings_that_no_checkpoint_can_have_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^a setting must be a number, a string or a list, got "):
        DigitClassifier(channels=value)


def test_weights_that_fit_initialise_another_network_and_the_others_are_named(checkpoint: Path) -> None:
    read = Checkpoint.read(checkpoint)
    read.content["state_dict"]["temperature"].fill_(2)
    classifier = DigitClassifier(channels=[4], classes=3)
    assert read.initialize(classifier, ["a", "b", "c"]) == (["fc.weight", "fc.bias"], [])
    loaded = classifier.state_dict()["network.layer1.0.weight"]
    assert torch.equal(loaded, read.content["state_dict"]["network.layer1.0.weight"])
    assert float(classifier.temperature) == 1
    with pytest.raises(ValueError, match=r"^no weights in .*my.ckpt fit the network"):
        read.initialize(DigitClassifier(channels=[5], classes=3), ["a", "b", "c"])


@pytest.mark.parametrize("classes", [["9", "dog", "0"], [*"9876543210"], [*"0123456789", "ten"], [*"0123456789"]])
def test_rows_of_the_last_layer_go_by_the_names_of_the_classes(checkpoint: Path, classes: list[str]) -> None:
    read, classifier = Checkpoint.read(checkpoint), DigitClassifier(channels=[4], classes=len(classes))
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    assert read.initialize(classifier, classes) == ([], [name for name in classes if not name.isdecimal()])
    for name in ("network.fc.weight", "network.fc.bias"):
        for row, found in enumerate(classes):
            old = read.content["state_dict"][name][int(found)] if found.isdecimal() else before[name][row]
            assert torch.equal(classifier.state_dict()[name][row], old)


def test_without_a_class_of_the_same_name_the_last_layer_is_reinitialised(checkpoint: Path) -> None:
    """Even if it has as many rows: ten words would take those of the digits, in alphabetical order."""
    words = ["eight", "five", "four", "nine", "one", "seven", "six", "three", "two", "zero"]
    classifier = DigitClassifier(channels=[4])
    assert Checkpoint.read(checkpoint).initialize(classifier, words) == (["fc.weight", "fc.bias"], [])


def test_load_from_checkpoint_runs_no_code(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    content = torch.load(checkpoint, weights_only=True)
    for malicious in (
        content | {"hyper_parameters": Malicious()},
        content | {"hyper_parameters": {"_instantiator": "os.mkdir", "_class_path": "os.mkdir"}},
    ):
        torch.save(malicious, "other.ckpt")
        with pytest.raises((pickle.UnpicklingError, ValueError)):
            DigitClassifier.load_from_checkpoint("other.ckpt", weights_only=True)
    assert not Path("trap").exists()
    assert DigitClassifier.load_from_checkpoint(checkpoint, weights_only=True).hparams == content["hyper_parameters"]


def test_newest_undamaged_checkpoint_replaces_a_damaged_last_one(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (last := tmp_path / "last.ckpt").write_bytes(checkpoint.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"last.ckpt is not a complete checkpoint"):
        Checkpoint.read_newest(last)
    for age, name in enumerate(["empty.ckpt", "new.ckpt", "old.ckpt"]):
        shutil.copy(checkpoint, tmp_path / name)
        if name == "empty.ckpt":
            (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    assert Checkpoint.read_newest(last).path == tmp_path / "new.ckpt"
    assert capsys.readouterr().out == f"{last} is not a complete checkpoint: taking {tmp_path / 'new.ckpt'} instead\n"
    (best := tmp_path / "best.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"best.ckpt is not a complete checkpoint"):
        Checkpoint.read_newest(best)
