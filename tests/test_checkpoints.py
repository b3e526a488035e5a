"""Opening a checkpoint gives weights and plain settings, or one clear line; it never runs code."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import stock_trainer

from mnist_lit import DigitClassifier, MNISTDataModule
from mnist_lit.checkpoints import load_weights, read_checkpoint, settings_of


@pytest.fixture(scope="module")
def checkpoint(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Lightning saves of a training of no steps."""
    path = tmp_path_factory.mktemp("checkpoint") / "my.ckpt"
    stock = stock_trainer(path.parent, max_steps=0)
    stock.fit(DigitClassifier(channels=[4], learning_rate=0.5), MNISTDataModule(batch_size=7, data_dir=str(data_dir)))
    stock.save_checkpoint(path)
    return path


def test_a_checkpoint_carries_the_settings_of_model_and_data(checkpoint: Path) -> None:
    assert settings_of(read_checkpoint(checkpoint)) == {
        "model": {"channels": [4], "learning_rate": 0.5},
        "data": {"batch_size": 7, "val_size": 5_000, "split_seed": 0, "dataset": "MNIST"},
    }


def test_weights_are_put_into_a_network_of_the_same_shape(checkpoint: Path) -> None:
    content = read_checkpoint(checkpoint)
    load_weights(classifier := DigitClassifier(channels=[4]), content, checkpoint)
    assert all(torch.equal(value, content["state_dict"][name]) for name, value in classifier.state_dict().items())


def test_weights_of_another_network_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"my.ckpt do not fit the network"):
        load_weights(DigitClassifier(channels=[5]), read_checkpoint(checkpoint), checkpoint)


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
        read_checkpoint(path)
    assert not Path("trap").exists()


@pytest.mark.parametrize("key", ["state_dict", "hyper_parameters", "datamodule_hyper_parameters", "epoch"])
def test_every_part_must_be_what_fit_writes(checkpoint: Path, key: str, tmp_path: Path) -> None:
    torch.save(read_checkpoint(checkpoint) | {key: "other"}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt was not written by this program's fit"):
        read_checkpoint(tmp_path / "other.ckpt")


def test_a_plain_state_dict_is_not_a_checkpoint_of_fit(tmp_path: Path) -> None:
    torch.save(DigitClassifier().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights.pt was not written by this program's fit"):
        read_checkpoint(tmp_path / "weights.pt")
