"""A training leaves what is promised, and goes on exactly where it was interrupted."""

import math
import shutil
import threading
from pathlib import Path

import pytest
import torch
from conftest import FLAGS, RUN, SHORT, Command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from mnist_lit import DigitClassifier
from mnist_lit.datasets.loading import Batch
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run


def test_fit_leaves_what_is_promised_and_nothing_else(command: Command) -> None:
    code, out, err = command("fit", *FLAGS)
    assert (code, err) == (0, "")
    assert sorted(path.relative_to(RUN.folder).as_posix().split(".")[0] for path in RUN.folder.rglob("*")) == [
        "checkpoints",
        "checkpoints/best",
        "checkpoints/last",
        "config",
        "events",
        "events",  # of the test
        "events",  # of the summary
        *("projector", *(f"projector/test{name}" for name in ("", "/metadata", "/sprite", "/tensors"))),
        "projector_config",
        "results",
    ]
    results = RUN.results()
    assert results.keys() == {"fit", "test"}
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
def test_tensorboard_has_the_promised_scalars() -> None:
    events = EventAccumulator(str(RUN.folder)).Reload()
    tags = set(events.Tags()["scalars"])
    stages = {f"{stage}/{metric}" for stage in ("train", "val", "test") for metric in ("loss", "accuracy")}
    assert tags == stages | {"lr-Adam", "epoch"}
    assert [event.step for event in events.Scalars("val/accuracy")] == [59, 119]
    assert events.Scalars("test/accuracy")[0].value == pytest.approx(RUN.results()["test"]["accuracy"])


def test_a_training_leaves_no_thread_that_writes_later(command: Command) -> None:
    """A process may train many runs, as a search does, and be in another folder by the time that it writes."""
    before = threading.active_count()
    assert command("fit", *SHORT)[0] == 0
    assert threading.active_count() == before


def test_a_saved_config_repeats_the_run_bit_for_bit(trained: Command) -> None:
    assert trained("fit", "--config", RUN.config)[0] == 0
    first, again = (
        Checkpoint.read(Path(f"runs/baseline/version_{n}/checkpoints/last.ckpt")).content["state_dict"] for n in (0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert trained("fit", "--config", RUN.config, "--seed=1")[0] == 0
    other = Checkpoint.read(Path("runs/baseline/version_2/checkpoints/last.ckpt")).content["state_dict"]
    assert not torch.equal(first["network.fc.weight"], other["network.fc.weight"])


@pytest.mark.usefixtures("trained")
def test_the_saved_config_says_what_was_run() -> None:
    text = RUN.config.read_text(encoding="utf-8")
    for line in ("experiment: baseline", "seed: 777", "  learning_rate: 0.001", "  limit_train_batches: 60"):
        assert line in text.splitlines()


def test_without_data_there_is_no_run_and_one_line_says_what_to_do(command: Command) -> None:
    shutil.rmtree("data")
    mirrors = "--data.mirrors=[file:///nowhere,http://me:secret@127.0.0.1:9/mnist]"
    code, out, err = command("fit", *FLAGS, mirrors)
    assert (code, out) == (1, "")
    *_, last = err.splitlines()
    assert last.startswith("error: no mirror serves train-images-idx3-ubyte.gz; tried file:///nowhere (")
    assert last.endswith(f"t10k-labels-idx1-ubyte.gz into {Path('data/MNIST/raw')}")
    assert "secret" not in err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("open_files_stay")
def test_a_training_that_cannot_begin_leaves_no_run_also_where_no_open_file_can_be_removed(command: Command) -> None:
    assert command("fit", "--trainer.accelerator=abacus")[0] == 2
    assert not Path("runs").exists()


def test_no_password_is_saved_with_a_run(command: Command) -> None:
    assert command("fit", *FLAGS, "--data.mirrors=[http://me:secret@127.0.0.1:9/mnist]")[0] == 0
    assert "- http://127.0.0.1:9/mnist" in RUN.config.read_text(encoding="utf-8")


def test_without_validation_best_is_last_and_said_so(command: Command) -> None:
    code, out, err = command("fit", *FLAGS, "--data.val_size=0")
    assert (code, err) == (0, "")
    assert "no validation: the best checkpoint is the last, epoch 2" in out
    assert RUN.results()["fit"]["best_val_accuracy"] is None
    code, out, err = command("validate")
    assert (code, err.count("\n")) == (1, 1)
    assert "there is no validation set" in err


def test_a_training_of_nothing_is_said_to_have_no_checkpoint(command: Command) -> None:
    code, out, err = command("fit", *FLAGS, "--trainer.max_epochs=0")
    assert (code, err) == (0, "")
    assert "there is no checkpoint, and nothing to test" in out
    assert RUN.results().keys() == {"fit"}


def test_a_limit_before_the_first_validation_has_the_last_step_tested(command: Command) -> None:
    code, out, err = command("fit", *FLAGS, "--trainer.max_steps=3")
    assert (code, err) == (0, "")
    assert "trained 0 epochs and 3 batches in " in out
    assert "no validation: the best checkpoint is the last, epoch 1" in out
    assert RUN.results()["fit"]["epochs"] == 0
    assert Checkpoint.read(RUN.checkpoints / "best.ckpt").content["global_step"] == 3
    assert RUN.results()["test"]["total"] == 10_000


def test_a_limit_of_time_ends_a_run_and_what_is_no_duration_is_named(command: Command) -> None:
    code, out, err = command("fit", *SHORT, "--trainer.max_time=00:00:00:00", "--trainer.max_epochs=null")
    assert (code, err) == (0, "")
    assert "trained 0 epochs in" in out
    code, _, err = command("fit", *SHORT, "--trainer.max_time=5m")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: --trainer.max_time: ")
    assert not Path("runs/baseline/version_1").exists()


def test_a_start_that_fails_before_its_first_checkpoint_leaves_no_run(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: DigitClassifier) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(DigitClassifier, "on_train_start", fail)
    assert command("fit", *SHORT)[::2] == (1, "error: no luck\n")
    assert not Path("runs").exists()


def test_a_run_that_diverged_keeps_its_curves_and_is_not_resumed_as_the_last(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("fit", *SHORT, "--trainer.max_epochs=1")[0] == 0
    step = DigitClassifier.training_step
    with monkeypatch.context() as patch:
        patch.setattr(DigitClassifier, "training_step", lambda self, batch: step(self, batch) * math.nan)
        code, _, err = command("fit", *SHORT)
    assert (code, err.count("\n")) == (1, 1)
    failed = Run(RUN.folder.with_name("version_1"))
    assert (failed.folder / "failed.txt").read_text(encoding="utf-8") == err.removeprefix("error: ")
    assert list(failed.folder.glob("events*"))
    assert f"{RUN.folder} is finished" in command("fit", "--ckpt_path=last")[1]
    shutil.rmtree(RUN.folder)
    code, _, err = command("fit", "--ckpt_path=last")
    assert (code, err) == (1, f"error: no run to resume: {failed.folder} failed, see {failed.folder / 'failed.txt'}\n")


def test_an_epoch_of_few_batches_gives_no_warning(command: Command) -> None:
    assert command("fit", *FLAGS, "--data.batch_size=2000")[::2] == (0, "")


def test_fit_tests_the_weights_of_the_best_epoch(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(classifier: DigitClassifier) -> None:
        if classifier.current_epoch == 1:
            torch.nn.init.zeros_(classifier.network.fc.weight)

    monkeypatch.setattr(DigitClassifier, "on_validation_start", spoil)
    assert command("fit", *FLAGS)[0] == 0
    results = RUN.results()
    assert results["fit"]["best_epoch"] == 1
    assert results["test"]["accuracy"] > 0.5, "five times the accuracy of the spoilt weights"


def test_every_epoch_has_its_own_order(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[list[Tensor]] = [[], []]
    step = DigitClassifier.training_step

    def note(classifier: DigitClassifier, batch: Batch) -> Tensor:
        orders[classifier.current_epoch].append(batch[1])
        return step(classifier, batch)

    monkeypatch.setattr(DigitClassifier, "training_step", note)
    assert command("fit", *FLAGS, "--data.val_size=54000", "--trainer.limit_val_batches=1")[0] == 0
    first, second = map(torch.cat, orders)
    assert not torch.equal(first, second)
    assert torch.equal(first.bincount(), second.bincount()), "all 6,000 images are used in each epoch"


def test_a_training_without_a_test_says_so(command: Command) -> None:
    code, out, _ = command("fit", *FLAGS, "--trainer.limit_test_batches=0")
    assert code == 0
    assert "not tested: the limit of test batches is 0" in out
    assert RUN.results().keys() == {"fit"}
