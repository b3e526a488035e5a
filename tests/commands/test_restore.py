"""A command reads its checkpoint once: what was verified is what is used."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RUN, Command


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that `torch.load` has read."""
    files: list[str] = []
    load = torch.load

    def record(file: Any, *args: Any, **kwargs: Any) -> Any:
        files.append(Path(getattr(file, "name", file)).name)
        return load(file, *args, **kwargs)

    monkeypatch.setattr(torch, "load", record)
    return files


@pytest.mark.parametrize("name", ["validate", "test", "predict"])
def test_a_command_reads_its_checkpoint_once(trained: Command, loaded: list[str], name: str) -> None:
    assert trained(name)[0] == 0
    assert loaded == ["best.ckpt"]


def test_an_output_without_a_run_goes_into_the_current_folder(trained: Command) -> None:
    (RUN.checkpoints / "best.ckpt").rename("mine.ckpt")
    assert trained("predict", "--ckpt_path=mine.ckpt", "--trainer.limit_predict_batches=1")[0] == 0
    assert Path("predictions.csv").is_file()
