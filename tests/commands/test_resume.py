"""A resumed run stays the same experiment, and a new run may start from the weights of a checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import RUN, SHORT, Command

from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run

BEST, LAST = RUN.checkpoints / "best.ckpt", RUN.checkpoints / "last.ckpt"
NEXT = Run(RUN.folder.with_name("version_1"))
FLAGS = [*(flag for flag in SHORT if "channels" not in flag), "--trainer.max_epochs=1", "--trainer.logger=false"]
"""Train for half a second, the network of a checkpoint."""


def contents() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in RUN.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "flag",
    [
        "--seed=1",
        "--model.learning_rate=0.05",
        "--model.channels=[5]",
        "--data.dataset=FashionMNIST",
        "--data.batch_size=50",
        "--data.val_size=4000",
        "--data.split_seed=1",
        "--data.rotation=10",
        "--trainer.precision=bf16-mixed",
        "--trainer.accumulate_grad_batches=2",
        "--trainer.limit_train_batches=30",
        "--trainer.limit_val_batches=6",
        "--trainer.gradient_clip_val=1",
        '--trainer.callbacks={"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}',
    ],
)
@pytest.mark.parametrize("which", [LAST, BEST])
def test_a_setting_that_would_change_the_experiment_is_refused(trained: Command, which: Path, flag: str) -> None:
    before = contents()
    code, out, err = trained("fit", "--ckpt_path", which, "--trainer.max_epochs=3", flag)
    assert (code, out, err.count("\n")) == (2, "", 1)
    name = flag.partition("=")[0]
    assert err.startswith(f"error: {name} cannot change when a run is resumed ({RUN.folder} has ")
    assert err.endswith(f"to start a new run from its weights, give --init_from {BEST}\n")
    assert contents() == before


def test_other_settings_may_change_and_unchanged_ones_may_be_given(trained: Command) -> None:
    shutil.copytree("data", "elsewhere")
    flags = ["--data.data_dir=elsewhere", "--save_every=7", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    same = ["--seed=777", "--model.channels=[4,8]", "--data.dataset=MNIST"]
    assert trained("fit", "--ckpt_path=last", "--trainer.max_epochs=3", *flags, *same)[::2] == (0, "")
    assert Checkpoint.read(LAST).content["global_step"] == 180


@pytest.mark.parametrize("limit", ["--trainer.max_epochs=0", "--trainer.max_epochs=1", "--trainer.max_steps=5"])
def test_a_limit_below_the_trained_steps_is_refused(trained: Command, limit: str) -> None:
    before = contents()
    code, _, err = trained("fit", "--ckpt_path=last", limit)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {limit.replace('=', ' ')}: {LAST} has ")
    assert contents() == before


def test_a_new_run_starts_from_the_weights_of_a_checkpoint(trained: Command) -> None:
    before = contents()
    flags = ["--model.learning_rate=1e-9", "--data.split_seed=1"]
    code, out, err = trained("fit", *FLAGS, "--init_from", BEST, *flags)
    assert (code, err) == (0, "")
    seen = f"validation has images that {BEST} was trained on, which raises its accuracy: it had --data.split_seed=0\n"
    assert seen in out
    assert f"weights from {BEST}\n" in out
    given, new = (Checkpoint.read(path).content["state_dict"] for path in (BEST, NEXT.checkpoints / "last.ckpt"))
    torch.testing.assert_close(new["network.fc.weight"], given["network.fc.weight"], rtol=0, atol=1e-6)
    assert f"init_from: {BEST}" in NEXT.config.read_text(encoding="utf-8")
    assert contents() == before


def test_init_from_takes_the_settings_of_the_network_but_not_of_the_training(command: Command) -> None:
    fast = [
        "--model.channels=[4,8]",
        "--model.batch_norm=true",
        "--model.kernel_sizes=[5,3]",
        "--model.learning_rate=0.02",
    ]
    assert command("fit", *FLAGS, *fast)[0] == 0
    assert command("fit", *FLAGS, "--init_from", BEST)[0] == 0
    settings = Checkpoint.read(NEXT.checkpoints / "last.ckpt").content["hyper_parameters"]
    assert (settings["kernel_sizes"], settings["batch_norm"], settings["learning_rate"]) == ([5, 3], True, 0.001)


def test_layers_of_other_shapes_are_initialised_and_named(trained: Command) -> None:
    code, out, err = trained("fit", *FLAGS, "--init_from", BEST, "--model.channels=[4,6]")
    assert (code, err) == (0, "")
    assert "these start anew, not in it or of another shape: layer2.0.weight, layer2.0.bias, fc.weight\n" in out
    other = ["--model.channels=[5]", "--model.kernel_sizes=[7]"]
    assert trained("fit", *FLAGS, "--init_from", BEST, *other)[::2] == (0, ""), "the ten biases still fit"


def test_a_run_that_starts_again_takes_the_same_initial_weights(trained: Command) -> None:
    assert trained("fit", *FLAGS, "--init_from", BEST)[0] == 0
    expected = Checkpoint.read(NEXT.checkpoints / "last.ckpt").content["state_dict"]
    shutil.rmtree(NEXT.checkpoints)
    (NEXT.folder / "results.json").unlink()
    assert trained("fit", "--ckpt_path=last")[::2] == (0, "")
    again = Checkpoint.read(NEXT.checkpoints / "last.ckpt").content["state_dict"]
    assert all(torch.equal(expected[name], again[name]) for name in expected)
    (NEXT.folder / "results.json").unlink()
    assert f"resuming {NEXT.checkpoints / 'last.ckpt'}" in trained("fit", "--ckpt_path=last")[1]


def test_initial_weights_that_cannot_be_loaded_give_one_line(trained: Command) -> None:
    Path("other.ckpt").write_text(json.dumps({}), encoding="utf-8")
    for flags, code, message in (
        (["--init_from=nowhere.ckpt"], 1, "nowhere.ckpt: No such file or directory"),
        (["--init_from=other.ckpt"], 1, "other.ckpt is not a complete checkpoint"),
        ([f"--init_from={BEST}", "--ckpt_path=last"], 2, "--init_from starts a new run, --ckpt_path resumes one"),
    ):
        ended = trained("fit", *FLAGS, *flags)
        assert (ended[0], ended[2].count("\n")) == (code, 1)
        assert ended[2].startswith(f"error: {message}")
    assert not NEXT.folder.exists()
