"""Lightning's own aids do here what they do elsewhere: by flag or config, without a word of code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FLAGS, RUN, SHORT, TRAIN, Command

from mnist_lit.checkpoints import read_checkpoint
from mnist_lit.runs import Run

LIGHTNING = "lightning.pytorch.callbacks."


def callback(name: str, **arguments: object) -> str:
    return "--trainer.callbacks=" + json.dumps([{"class_path": LIGHTNING + name, "init_args": arguments}])


def test_early_stopping_ends_a_run_that_no_longer_gets_better(command: Command) -> None:
    stop = callback("EarlyStopping", monitor="val/accuracy", mode="max", patience=2, min_delta=1.0)
    code, out, err = command("fit", *SHORT, "--trainer.max_epochs=50", stop)
    assert (code, err) == (0, "")
    assert RUN.results()["fit"]["epochs"] == 3, "the first epoch counts, two were not better by one"
    assert "test accuracy" in out


def test_the_learning_rate_finder_sets_the_rate_that_the_run_is_trained_with(command: Command) -> None:
    find = callback("LearningRateFinder", num_training_steps=40, max_lr=0.1)
    code, _, err = command("fit", *FLAGS, "--trainer.max_epochs=1", find)
    assert code == 0, err
    content = read_checkpoint(RUN.checkpoints / "last.ckpt")
    rate = content["optimizer_states"][0]["param_groups"][0]["lr"]
    assert 1e-6 < rate < 0.1
    assert rate != 0.001
    assert content["global_step"] == 60, "the steps of the finder are forgotten"
    assert sorted(path.name for path in RUN.checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert not list(RUN.folder.glob(".lr_find*"))
    assert command("test")[0] == 0


@pytest.mark.usefixtures("command")
def test_the_debug_config_learns_one_batch_by_heart_with_every_aid_on() -> None:
    config = TRAIN.parent / "configs/debug.yaml"
    ended = subprocess.run([sys.executable, TRAIN, "fit", f"--config={config}"], capture_output=True, check=True)
    lines = ended.stdout.decode().splitlines()
    last = next(line for line in lines if line.startswith("epoch 29/30"))
    assert last.endswith("train/accuracy 1.0000")
    assert b"FIT Profiler Report" in ended.stderr
    assert Run(Path("runs/debug/version_0")).results()["fit"]["epochs"] == 30


def test_a_few_batches_of_everything_find_what_breaks(command: Command) -> None:
    code, out, _ = command("fit", "--trainer.fast_dev_run=3")
    assert code == 0
    assert "epoch  1/1" in out
