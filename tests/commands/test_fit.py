"""`fit` trains, tests the best checkpoint once, and records the results; a resumed run stays the same experiment."""

import json
import math
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch
from conftest import FLAGS, RUN, SHORT, Command, callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from mnist_lit import DigitClassifier
from mnist_lit.datasets.sampling import Batch
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run

BEST, LAST = RUN.checkpoints / "best.ckpt", RUN.checkpoints / "last.ckpt"
NEXT = Run(RUN.folder.with_name("version_1"))
QUICK = [*(flag for flag in SHORT if "channels" not in flag), "--trainer.max_epochs=1", "--trainer.logger=false"]
"""Train for half a second, the network of a checkpoint."""


def contents() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in RUN.folder.rglob("*") if path.is_file()}


def test_fit_writes_the_documented_files_and_no_others(command: Command) -> None:
    out = command.succeed("fit", *FLAGS)
    assert sorted(path.relative_to(RUN.folder).as_posix().split(".")[0] for path in RUN.folder.rglob("*")) == [
        "checkpoints",
        "checkpoints/best",
        "checkpoints/last",
        "config",
        "confusion",
        "curves",
        "events",
        "events",  # of the test
        "events",  # of the summary
        "mistakes",
        "results",
    ]
    results = RUN.results()
    assert results.keys() == {"fit", "test", "made_by"}
    assert results["made_by"].keys() >= {"mnist_lit", "commit", "device", "processor", "threads", "torch", "lightning"}
    assert results["fit"].keys() == {"epochs", "seconds", "images_per_second", "best_epoch", "best_val_accuracy"}
    assert results["fit"]["epochs"] == 2
    assert results["fit"]["best_epoch"] in {1, 2}
    tested = results["test"]
    assert tested.keys() == {"accuracy", "loss", "correct", "total", "interval_95", "checkpoint"}
    assert (tested["total"], tested["checkpoint"]) == (10_000, "checkpoints/best.ckpt")
    assert tested["accuracy"] == tested["correct"] / 10_000 > 0.8
    assert f"{10_000 - tested['correct']:,} errors in 10,000" in out
    assert f"best validation accuracy {results['fit']['best_val_accuracy']:.2%}" in out
    assert "(1, 28, 28) → (4, 28, 28) → (4, 14, 14) → (8, 14, 14) → (8, 7, 7) → 392 → 10" in out
    assert "tensorboard --logdir runs" in out


@pytest.mark.usefixtures("trained")
def test_tensorboard_has_the_documented_scalars() -> None:
    events = EventAccumulator(str(RUN.folder)).Reload()
    tags = set(events.Tags()["scalars"])
    stages = {f"{stage}/{metric}" for stage in ("train", "val", "test") for metric in ("loss", "accuracy")}
    assert tags == stages | {"train/loss_by_step", "lr-Adam", "epoch"}
    assert [event.step for event in events.Scalars("val/accuracy")] == [59, 119]
    assert events.Scalars("test/accuracy")[0].value == pytest.approx(RUN.results()["test"]["accuracy"])


def test_a_training_leaves_no_thread_and_warns_of_nothing(command: Command) -> None:
    """A thread would write later, when the process trains another run, maybe in another folder."""
    before = threading.active_count()
    assert command("fit", *SHORT)[::2] == (0, ""), "not even of an epoch shorter than the logging interval"
    assert threading.active_count() == before


def test_a_saved_config_repeats_the_run_bit_for_bit(command: Command) -> None:
    assert command("fit", *SHORT, "--trainer.logger=false")[0] == 0
    for flags in ([], ["--seed=1", "--trainer.max_epochs=1"]):
        assert command("fit", "--config", RUN.config, *flags)[0] == 0
    first, again, other = (
        Checkpoint.read(Path(f"runs/baseline/version_{n}/checkpoints/last.ckpt")).content["state_dict"]
        for n in range(3)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["network.fc.weight"], other["network.fc.weight"])


def test_a_checkpoint_of_weights_alone_is_not_resumed_and_the_run_is_unchanged(command: Command) -> None:
    weights = callback("ModelCheckpoint", save_weights_only=True, filename="weights")
    assert command("fit", *SHORT, weights)[0] == 0
    before = contents()
    err = command.refuse("fit", "--ckpt_path", RUN.checkpoints / "weights.ckpt", "--trainer.max_epochs=4", code=1)
    assert err.endswith("weights.ckpt has weights only: for a new run that starts from them, give --init_from\n")
    assert contents() == before
    assert command("test", "--ckpt_path", RUN.checkpoints / "weights.ckpt")[::2] == (0, "")
    assert command("fit", *QUICK, "--init_from", RUN.checkpoints / "weights.ckpt")[::2] == (0, "")


@pytest.mark.parametrize(("old", "new"), [("learning_rate: 0.001", "learning_rate: 0.5"), ("seed: 777", "seed: 7")])
def test_a_config_that_was_edited_since_is_not_resumed(trained: Command, old: str, new: str) -> None:
    text = RUN.config.read_text(encoding="utf-8")
    assert old in text
    RUN.config.write_text(text.replace(old, new), encoding="utf-8")
    err = trained.refuse("fit", "--ckpt_path=last", "--trainer.max_epochs=3")
    (name, was), (_, found) = old.split(": "), new.split(": ")
    line = rf"error: --\S*{name} cannot change .* it was {was}, not {found}\): undo the change, or .*\n"
    assert re.fullmatch(line, err)
    RUN.config.write_text(text.replace("max_epochs: 2", "max_epochs: 3"), encoding="utf-8")
    assert trained("fit", "--ckpt_path=last")[0] == 0
    assert RUN.results()["fit"]["epochs"] == 3, "a limit is the file's"


def test_a_run_that_an_earlier_version_has_begun_is_resumed_with_the_default_of_a_new_setting(trained: Command) -> None:
    text = RUN.config.read_text(encoding="utf-8")
    RUN.config.write_text(text.replace("  views: 1\n", ""), encoding="utf-8")
    content = Checkpoint.read(LAST).content
    del content["config"]["model.views"]
    torch.save(content, LAST)
    err = trained.refuse("fit", "--ckpt_path=last", "--trainer.max_epochs=3", "--model.views=2")
    assert "it was 1, not 2" in err
    assert trained("fit", "--ckpt_path=last", "--trainer.max_epochs=3")[0] == 0
    assert RUN.results()["fit"]["epochs"] == 3


def test_without_data_there_is_no_run_and_one_line_explains_what_to_do(command: Command) -> None:
    shutil.rmtree("data")
    mirrors = "--data.mirrors=[file:///nowhere,http://127.0.0.1:9/mnist]"
    err = command.refuse("fit", *SHORT, mirrors, code=1)
    *_, last = err.splitlines()
    assert last.startswith("error: no mirror serves train-images-idx3-ubyte.gz; tried file:///nowhere (")
    assert "; http://127.0.0.1:9/mnist (" in last
    assert last.endswith(f"t10k-labels-idx1-ubyte.gz into {Path('data/MNIST/raw')}")
    assert not list(Path("data/MNIST/raw").glob("*.gz"))
    assert not Path("runs").exists()


@pytest.mark.usefixtures("open_files_stay")
def test_a_training_that_cannot_start_leaves_no_run_even_if_open_files_cannot_be_removed(command: Command) -> None:
    assert command("fit", "--trainer.accelerator=abacus")[0] == 2
    assert not Path("runs").exists()


def test_without_validation_the_best_checkpoint_is_the_last(command: Command) -> None:
    out = command.succeed("fit", *SHORT, "--data.val_size=0")
    assert "no validation: the best checkpoint is the last epoch" in out
    assert RUN.results()["fit"]["best_val_accuracy"] is None
    assert RUN.results()["fit"]["best_epoch"] == 2
    err = command.refuse("validate", code=1)
    assert "there is no validation set" in err


def test_a_run_that_fails_before_its_first_checkpoint_is_removed(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: DigitClassifier) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(DigitClassifier, "on_train_start", fail)
    assert command("fit", *SHORT)[::2] == (1, "error: no luck\n")
    assert not Path("runs").exists()


def test_a_diverged_run_keeps_its_curves_and_is_not_resumed(trained: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    step = DigitClassifier.training_step
    with monkeypatch.context() as patch:
        patch.setattr(DigitClassifier, "training_step", lambda self, batch: step(self, batch) * math.nan)
        code, _, err = trained("fit", *SHORT)
    assert (code, err.count("\n")) == (1, 1)
    failed = NEXT
    assert (failed.folder / "failed.txt").read_text(encoding="utf-8") == err.removeprefix("error: ")
    assert list(failed.folder.glob("events*"))
    assert f"{RUN.folder} is finished" in trained("fit", "--ckpt_path=last")[1]
    shutil.rmtree(RUN.folder)
    code, _, err = trained("fit", "--ckpt_path=last")
    assert (code, err) == (1, f"error: no run to resume: {failed.folder} failed, see {failed.folder / 'failed.txt'}\n")


@pytest.mark.parametrize(("select", "epoch"), [("best_epoch", 1), ("last_epoch", 2)])
def test_fit_tests_the_weights_of_the_selected_epoch(
    command: Command, monkeypatch: pytest.MonkeyPatch, select: str, epoch: int
) -> None:
    def zero(classifier: DigitClassifier) -> None:
        if classifier.current_epoch == 1:
            torch.nn.init.zeros_(classifier.network.fc.weight)

    monkeypatch.setattr(DigitClassifier, "on_validation_start", zero)
    flags = ["--model.learning_rate=0.01", "--trainer.limit_test_batches=1.0", f"--select={select}"]
    assert command("fit", *SHORT, *flags)[0] == 0
    results = RUN.results()
    assert results["fit"]["best_epoch"] == epoch
    assert (results["test"]["accuracy"] > 0.5) == (epoch == 1), "of zeros it is 0.1"


def test_every_epoch_has_its_own_order(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[list[Tensor]] = [[], []]
    step = DigitClassifier.training_step

    def record(classifier: DigitClassifier, batch: Batch) -> Tensor:
        orders[classifier.current_epoch].append(batch[1])
        return step(classifier, batch)

    monkeypatch.setattr(DigitClassifier, "training_step", record)
    assert command("fit", *SHORT, "--data.val_size=58000")[0] == 0
    first, second = map(torch.cat, orders)
    assert not torch.equal(first, second)
    assert torch.equal(first.bincount(), second.bincount()), "each epoch has all 2,000 images"


def test_a_limit_of_0_test_batches_skips_the_test(command: Command) -> None:
    out = command.succeed("fit", *SHORT, "--trainer.limit_test_batches=0")
    assert "test accuracy" not in out
    assert RUN.results().keys() == {"fit", "made_by"}
    assert [path.name for path in RUN.folder.glob("*.png")] == ["curves.png"]


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
        "--trainer.fast_dev_run=3",
        callback("EarlyStopping", monitor="val/loss"),
    ],
)
def test_a_setting_that_would_change_the_experiment_is_refused(trained: Command, flag: str) -> None:
    before = contents()
    code, out, err = trained("fit", "--ckpt_path=last", "--trainer.max_epochs=3", flag)
    assert (code, out, err.count("\n")) == (2, "", 1)
    name = flag.partition("=")[0]
    assert err.startswith(f"error: {name} cannot change when a run is resumed (in {RUN.folder} it was ")
    assert err.endswith(f"undo the change, or start a new run with --init_from {BEST}\n")
    assert contents() == before


def test_other_settings_may_change_and_unchanged_ones_may_be_given(trained: Command) -> None:
    shutil.copytree("data", "elsewhere")
    flags = ["--data.data_dir=elsewhere", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    same = ["--seed=777", "--model.channels=[4,8]", "--data.dataset=MNIST"]
    assert trained("fit", "--ckpt_path=last", "--trainer.max_epochs=3", *flags, *same)[::2] == (0, "")
    assert Checkpoint.read(LAST).content["global_step"] == 180


@pytest.mark.parametrize("limit", ["--trainer.max_epochs=0", "--trainer.max_epochs=1", "--trainer.max_steps=5"])
def test_a_limit_below_the_trained_steps_is_refused(trained: Command, limit: str) -> None:
    before = contents()
    err = trained.refuse("fit", "--ckpt_path=last", limit)
    assert err.startswith(f"error: {limit.replace('=', ' ')}: {LAST} has ")
    assert contents() == before


def test_a_new_run_starts_from_the_weights_of_a_checkpoint(trained: Command) -> None:
    before = contents()
    flags = ["--model.learning_rate=1e-9", "--data.split_seed=1"]
    out = trained.succeed("fit", *QUICK, "--init_from", BEST, *flags)
    seen = f"validation has images that {BEST} was trained on, which raises its accuracy: it had --data.split_seed=0\n"
    assert seen in out
    assert f"weights from {BEST}\n" in out
    given, new = (Checkpoint.read(path).content["state_dict"] for path in (BEST, NEXT.checkpoints / "last.ckpt"))
    torch.testing.assert_close(new["network.fc.weight"], given["network.fc.weight"], rtol=0, atol=1e-6)
    assert f"init_from: {BEST}" in NEXT.config.read_text(encoding="utf-8")
    assert contents() == before


def test_init_from_takes_the_settings_of_the_network_but_not_of_the_training(command: Command) -> None:
    network = ["--model.channels=[4,8]", "--model.batch_norm=true", "--model.kernel_sizes=[5,3]"]
    assert command("fit", *QUICK, *network, "--model.learning_rate=0.02")[0] == 0
    assert command("fit", *QUICK, "--init_from", BEST)[0] == 0
    settings = Checkpoint.read(NEXT.checkpoints / "last.ckpt").content["hyper_parameters"]
    assert (settings["kernel_sizes"], settings["batch_norm"], settings["learning_rate"]) == ([5, 3], True, 0.001)


def test_a_run_that_starts_again_takes_the_same_initial_weights(trained: Command) -> None:
    assert trained("fit", *QUICK, "--init_from", BEST)[0] == 0
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
        ended = trained("fit", *QUICK, *flags)
        assert (ended[0], ended[2].count("\n")) == (code, 1)
        assert ended[2].startswith(f"error: {message}")
    assert not NEXT.folder.exists()
