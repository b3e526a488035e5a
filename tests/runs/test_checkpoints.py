"""Opening a checkpoint gives weights and plain settings, or one clear line; it never runs code."""

import errno
import os
import pickle
import shutil
import tracemalloc
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
import torch
from conftest import stock_trainer

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.runs.checkpoints import Checkpoint, DurableCheckpointIO


@pytest.fixture(scope="module")
def checkpoint(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Lightning saves of a training of no steps."""
    path = tmp_path_factory.mktemp("checkpoint") / "my.ckpt"
    stock = stock_trainer(path.parent, max_steps=0)
    stock.fit(DigitClassifier(channels=[4], learning_rate=0.5), MNISTDataModule(batch_size=7, data_dir=str(data_dir)))
    stock.save_checkpoint(path)
    return path


def test_a_checkpoint_carries_the_settings_of_model_and_data(checkpoint: Path) -> None:
    settings = Checkpoint.read(checkpoint).settings
    assert settings["data"] == {"batch_size": 7, "val_size": 5_000, "split_seed": 0, "dataset": "MNIST"}
    assert settings["model"] == dict(DigitClassifier(channels=[4], learning_rate=0.5).hparams)


def test_a_checkpoint_chooses_no_folder_and_no_server(checkpoint: Path) -> None:
    content = Checkpoint.read(checkpoint).content
    expected = Checkpoint(checkpoint, content).settings
    content["datamodule_hyper_parameters"] |= {"data_dir": "/nowhere", "mirrors": ["http://127.0.0.1:9/mnist"]}
    assert Checkpoint(checkpoint, content).settings == expected


def test_weights_are_put_into_a_network_of_the_same_shape(checkpoint: Path) -> None:
    read = Checkpoint.read(checkpoint)
    read.load_into(classifier := DigitClassifier(channels=[4]))
    assert all(torch.equal(value, read.content["state_dict"][name]) for name, value in classifier.state_dict().items())


def test_weights_of_another_network_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"my.ckpt do not fit the network"):
        Checkpoint.read(checkpoint).load_into(DigitClassifier(channels=[5]))


class Hostile:
    """Unpickled the ordinary way, it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("trap",)


@pytest.mark.parametrize("kind", ["zeros", "page", "text", "yaml", "flipped", "truncated", "pickle", "torch", "empty"])
def test_no_other_file_is_opened(checkpoint: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # must not matter
    path = Path("other.ckpt")
    if kind == "torch":
        torch.save({"state_dict": Hostile()}, path)
    else:
        path.write_bytes(
            {
                "zeros": bytes(10_000),
                "page": b"<!doctype html><title>404</title>",
                "text": b"(a",
                "yaml": b"model:\n  channels: [32]\n",
                "flipped": b"\x80\x02}q\x00(X\x01\x00\x00\x00au\xff.",
                "truncated": checkpoint.read_bytes()[:-1_000],
                "pickle": pickle.dumps(Hostile()),
                "empty": b"",
            }[kind]
        )
    with pytest.raises(ValueError, match=r"other.ckpt is not a complete checkpoint"):
        Checkpoint.read(path)
    assert not Path("trap").exists()


@pytest.mark.parametrize("key", ["state_dict", "hyper_parameters", "datamodule_hyper_parameters", "epoch"])
def test_every_part_must_be_what_fit_writes(checkpoint: Path, key: str, tmp_path: Path) -> None:
    torch.save(Checkpoint.read(checkpoint).content | {key: "other"}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt was not written by this program's fit"):
        Checkpoint.read(tmp_path / "other.ckpt")


def test_a_plain_state_dict_is_not_a_checkpoint_of_fit(tmp_path: Path) -> None:
    torch.save(DigitClassifier().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights.pt was not written by this program's fit"):
        Checkpoint.read(tmp_path / "weights.pt")


def test_a_flipped_bit_is_found_wherever_it_is(checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    for place in range(0, len(content), len(content) // 50):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (path := tmp_path / "other.ckpt").write_bytes(damaged)
        try:
            found = Checkpoint.read(path).content
        except ValueError:
            continue
        whole = Checkpoint.read(checkpoint).content
        assert all(torch.equal(value, whole["state_dict"][name]) for name, value in found["state_dict"].items())


def repacked(checkpoint: Path, name: str, member: bytes, compression: int = ZIP_STORED) -> bytes:
    """Return a checkpoint's bytes with another member in place of `name`."""
    content = BytesIO()
    with ZipFile(checkpoint) as given, ZipFile(content, "w", compression) as other:
        for path in given.namelist():
            other.writestr(path, member if path.endswith(f"/{name}") else given.read(path))
    return content.getvalue()


def pickled(name: str, number: int) -> bytes:
    """Return a pickle that calls what is named with a number of bytes to make."""
    return b"\x80\x02c" + name.encode() + b"\nJ" + number.to_bytes(4, "little") + b"\x85R."


@pytest.mark.parametrize("kind", ["data/0", "version", "builtins\nbytearray", "torch\nTensor", "torch\nFloatTensor"])
def test_few_bytes_that_would_become_gigabytes_are_refused_unread(checkpoint: Path, kind: str, tmp_path: Path) -> None:
    if "\n" in kind:
        content = repacked(checkpoint, "data.pkl", pickled(kind, 2**31 - 1))
    else:
        content = repacked(checkpoint, kind, bytes(100_000_000), ZIP_DEFLATED)
    (path := tmp_path / "other.ckpt").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"other.ckpt is not a complete checkpoint"):
        Checkpoint.read(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10_000_000


def nested(times: int) -> list[Any]:
    values: list[Any] = [1]
    for _ in range(times):
        values = [values] * 10
    return values


@pytest.mark.parametrize(
    "part",
    [
        {"state_dict": {"network.fc.bias": torch.zeros(1).expand(10**13)}},
        {"state_dict": {1: torch.zeros(1)}},
        {"state_dict": {"network.fc.bias": 1}},
        {"hyper_parameters": {"channels": nested(12)}},
        {"hyper_parameters": {"channels": nested(1)}},
        {"hyper_parameters": {"channels": [1] * 1_001}},
        {"datamodule_hyper_parameters": {"dataset": {}}},
        {"optimizer_states": nested(12)},
    ],
    ids=" ".join,
)
def test_parts_that_are_larger_than_they_are_written_are_refused_at_once(
    checkpoint: Path, part: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(Checkpoint.read(checkpoint).content | part, tmp_path / "other.ckpt")
    since = monotonic()
    with pytest.raises(ValueError, match=r"other.ckpt was not written by this program's fit"):
        Checkpoint.read(tmp_path / "other.ckpt")
    assert monotonic() - since < 20


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(checkpoint: Path, value: float, tmp_path: Path) -> None:
    content = Checkpoint.read(checkpoint).content
    content["state_dict"]["network.fc.bias"][3] = value
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt has weights that are not finite numbers"):
        Checkpoint.read(tmp_path / "other.ckpt")


def test_200_megabytes_of_junk_are_refused(tmp_path: Path) -> None:
    with (path := tmp_path / "other.ckpt").open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(1_000_000))
    with pytest.raises(ValueError, match=r"other.ckpt is not a complete checkpoint"):
        Checkpoint.read(path)


def test_in_a_notebook_too_no_code_in_a_checkpoint_is_run(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    content = torch.load(checkpoint, weights_only=True)
    for hostile in (
        content | {"hyper_parameters": Hostile()},
        content | {"hyper_parameters": {"_instantiator": "os.mkdir", "_class_path": "os.mkdir"}},
    ):
        torch.save(hostile, "other.ckpt")
        with pytest.raises((pickle.UnpicklingError, ValueError)):
            DigitClassifier.load_from_checkpoint("other.ckpt")
    assert not Path("trap").exists()
    assert DigitClassifier.load_from_checkpoint(checkpoint).hparams == content["hyper_parameters"]


def test_a_save_that_fails_leaves_what_was_there(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    io = DurableCheckpointIO()
    io.save_checkpoint({"a": 1}, path := tmp_path / "other.ckpt")
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    content = Checkpoint.read(checkpoint).content
    with pytest.raises(OSError, match=r"No space left on device: .*other.ckpt"):
        io.save_checkpoint(content, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_beside_a_damaged_last_checkpoint_the_newest_is_taken(
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
