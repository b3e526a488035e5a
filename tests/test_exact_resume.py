"""A run that is interrupted anywhere and resumed gives bit for bit the results of an uninterrupted run."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import RUN, SHORT, TRAIN, Command, callback, full_disk, make_once, posix, train
from filelock import FileLock
from helpers.outcomes import differences, outcome
from torch import Tensor

from mnist_lit import DigitClassifier
from mnist_lit.datasets.sampling import Batch
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run
from mnist_lit.system.files import write_atomically
from mnist_lit.system.program import PROGRAM
from mnist_lit.training import checkpointing

LAST, BEST = RUN.checkpoints / "last.ckpt", RUN.checkpoints / "best.ckpt"
FLAGS = [*SHORT, "--trainer.max_epochs=3"]
"""Train for three epochs of 20 steps."""
CONFIGS = TRAIN.parent / "configs"


@pytest.fixture(scope="session")
def expected(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of an uninterrupted training with FLAGS."""
    made = make_once(tmp_path_factory, "uninterrupted", lambda folder: train(folder, data_dir, *FLAGS))
    shutil.copytree(made / "runs", (folder := tmp_path_factory.mktemp("expected")) / "runs")
    return outcome(Run(folder / RUN.folder))


def in_step(number: int, happen: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `happen` in a step of the training."""
    step = DigitClassifier.training_step

    def training_step(classifier: DigitClassifier, batch: Batch) -> Tensor:
        if classifier.global_step == number - 1:
            happen()
        return step(classifier, batch)

    monkeypatch.setattr(DigitClassifier, "training_step", training_step)


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def interrupt(command: Command, monkeypatch: pytest.MonkeyPatch, step: int, *flags: str) -> None:
    """Terminate a training in a step."""
    with monkeypatch.context() as patch:
        in_step(step, terminate, patch)
        assert command("fit", *flags)[0] == 143


@pytest.fixture
def snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Copies of the run's folder as it was after each save of a checkpoint, each with the name of the checkpoint."""
    taken: list[Path] = []

    def save(path: Path, content: bytes) -> None:
        write_atomically(path, content)
        taken.append(tmp_path / f"{len(taken)}" / path.name)
        shutil.copytree(RUN.folder, taken[-1].parent, ignore=shutil.ignore_patterns(".lock"))

    monkeypatch.setattr(checkpointing, "write_atomically", save)
    return taken


THREE_BLOCKS = "--model.channels=[2,4,4]"  # as in those configs
RANDOM = ["--model.dropout=0.2", "--data.rotation=10", "--data.elastic=0.5", "--data.crop=2", "--data.flip=true"]
VARIANTS = {
    "default": [],
    "limit of steps within an epoch": ["--trainer.max_steps=53"],
    "limit of time": ["--trainer.max_time=00:01:00:00"],
    "validations within an epoch": ["--trainer.val_check_interval=7"],
    "validations across epochs": ["--trainer.val_check_interval=13", "--trainer.check_val_every_n_epoch=null"],
    "a validation every other epoch": ["--trainer.check_val_every_n_epoch=2"],
    "no validation": ["--data.val_size=0"],
    "accumulation": ["--trainer.accumulate_grad_batches=3"],
    "accumulation and validations": ["--trainer.accumulate_grad_batches=3", "--trainer.val_check_interval=3"],
    "randomness and schedule": [*RANDOM, "--model.schedule=one_cycle", "--model.batch_norm=true"],
    "gradient clipping": ["--trainer.gradient_clip_val=0.1"],
    "lower precision": ["--trainer.precision=bf16-mixed"],
    "early stopping": [
        callback("EarlyStopping", monitor="val/loss", min_delta=9, patience=1),
        "--trainer.max_epochs=4",
    ],
    "early stopping within an epoch": [
        callback("EarlyStopping", monitor="val/loss", min_delta=9, patience=2),
        "--trainer.val_check_interval=7",
    ],
    "averaged weights": [*RANDOM, "--model.batch_norm=true", callback("WeightAveraging")],
    "moving average": [
        *RANDOM,
        "--model.batch_norm=true",
        callback("EMAWeightAveraging", decay=0.9, update_starting_at_step=8),
        "--trainer.val_check_interval=10",
    ],
    "SGD": ["--model.optimizer=sgd", "--model.learning_rate=0.05"],
    "Muon": [*RANDOM, "--model.optimizer=muon", "--model.batch_norm=true", "--model.schedule=one_cycle"],
    "several loggers": ["--trainer.logger=CSVLogger", "--trainer.log_every_n_steps=5"],
    "fast": [f"--config={CONFIGS}/fast.yaml", "--experiment=baseline", THREE_BLOCKS, "--trainer.max_epochs=2"],
    "best": [f"--config={CONFIGS}/best.yaml", "--experiment=baseline", THREE_BLOCKS, "--trainer.max_epochs=2"],
}
QUICK = {"randomness and schedule"}  # in the default suite


@pytest.mark.parametrize(
    "flags",
    [pytest.param(f, id=k, marks=[] if k in QUICK else [pytest.mark.slow]) for k, f in VARIANTS.items()],
)
def test_resuming_any_checkpoint_gives_bit_identical_results(
    command: Command, snapshots: list[Path], flags: list[str]
) -> None:
    assert command("fit", *FLAGS, *flags)[0] == 0
    expected = outcome()
    assert {path.name for path in snapshots} == {"best.ckpt", "last.ckpt"}
    assert len(snapshots) >= 2
    for snapshot in snapshots.copy():
        shutil.rmtree(RUN.folder)
        shutil.copytree(snapshot.parent, RUN.folder)
        code, out, err = command("fit", "--ckpt_path", RUN.checkpoints / snapshot.name)
        assert (code, err) == (0, ""), "no other flag is needed"
        assert f"resuming {RUN.checkpoints}" in out
        assert differences(outcome(), expected) == []


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(2, 130, "interrupted"), pytest.param(15, 143, "terminated", marks=pytest.mark.slow)],
)
def test_a_signal_ends_the_run_with_a_line_that_says_how_to_resume_it(
    command: Command, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, number: int, code: int, word: str
) -> None:
    with monkeypatch.context() as patch:
        in_step(27, lambda: signal.raise_signal(number), patch)
        ended, _, err = command("fit", *FLAGS)
    assert (ended, err) == (code, f"{word}; to resume:\n{PROGRAM} fit --ckpt_path last\n")
    assert Checkpoint.read(LAST).content["global_step"] == 20, "the unfinished epoch is trained again"
    assert command("fit", "--ckpt_path=last")[0] == 0
    assert differences(outcome(), expected) == []


def test_a_run_that_was_moved_and_interrupted_again_gives_the_same_results(
    command: Command, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(command, monkeypatch, 27, *FLAGS)
    Path("moved").mkdir()
    for name in ("data", "runs"):
        Path(name).rename(Path("moved", name))
    monkeypatch.chdir("moved")
    for step, saved in ((28, 20), (45, 40)):
        interrupt(command, monkeypatch, step, "--ckpt_path=last")
        assert Checkpoint.read(LAST).content["global_step"] == saved
    assert command("fit", "--ckpt_path=last")[::2] == (0, "")
    assert differences(outcome(), expected) == []


@posix
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's writer fails, too
def test_a_full_disk_is_reported_and_the_checkpoint_before_is_kept(
    command: Command, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack, monkeypatch.context() as patch:
        in_step(27, lambda: stack.enter_context(full_disk(50_000)), patch)
        code, _, err = command("fit", *FLAGS)
    assert code == 1
    assert re.fullmatch(rf"error: {RUN.folder}\S*: File too large\n", err)
    assert sorted(path.name for path in RUN.checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert command("fit", "--ckpt_path=last")[0] == 0
    assert differences(outcome(), expected) == []


def test_checkpoints_are_saved_without_the_temporary_folder(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be on another file system, from which a file cannot be moved atomically."""
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/nowhere")
        assert command("fit", *FLAGS, "--trainer.max_steps=1")[0] == 0
    assert BEST.is_file()


@pytest.mark.parametrize("hook", [pytest.param("on_train_end", marks=pytest.mark.slow), "on_test_epoch_end"])
def test_a_run_interrupted_after_its_last_step_or_in_its_test_is_tested_when_resumed(
    command: Command, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(DigitClassifier, hook, lambda _: terminate())
        assert command("fit", *FLAGS)[0] == 143
    assert RUN.results() == {}
    assert command("fit", "--ckpt_path=last")[::2] == (0, "")
    assert differences(outcome(), expected) == []


def test_instead_of_a_damaged_last_checkpoint_the_newest_complete_one_is_resumed(
    command: Command, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(command, monkeypatch, 27, *FLAGS)
    LAST.write_bytes(LAST.read_bytes()[:-100])
    unfinished = RUN.checkpoints / ".last.ckpt.1.part"
    unfinished.touch()
    out = command.succeed("fit", "--ckpt_path=last")
    assert f"{LAST} is not a complete checkpoint: taking {BEST} instead" in out
    assert differences(outcome(), expected) == []
    assert not unfinished.exists()


def test_a_run_without_a_checkpoint_starts_again(trained: Command) -> None:
    expected = outcome()
    shutil.rmtree(RUN.checkpoints)
    (RUN.folder / "results.json").unlink()
    out = trained.succeed("fit", "--ckpt_path=last")
    assert f"{RUN.folder} has no complete epoch: it starts again" in out
    assert differences(outcome(), expected) == []


def test_resuming_a_finished_run_changes_nothing(trained: Command) -> None:
    results, expected = RUN.results(), outcome()
    out = f"{RUN.folder} is finished: raise --trainer.max_epochs, or the limit that has ended it, to train it longer\n"
    assert trained("fit", "--ckpt_path=last") == (0, out, "")
    assert RUN.results() == results
    assert differences(outcome(), expected) == []


def test_training_longer_equals_training_that_long_from_the_start(command: Command, expected: dict[str, Any]) -> None:
    assert command("fit", *FLAGS, "--trainer.max_epochs=1")[0] == 0
    assert command("fit", "--ckpt_path=last", "--trainer.max_epochs=3")[0] == 0
    assert differences(outcome(), expected) == []


def test_a_run_with_a_schedule_cannot_be_trained_longer(command: Command) -> None:
    assert command("fit", *FLAGS, "--model.schedule=one_cycle", "--trainer.max_epochs=1")[0] == 0
    before = outcome()
    err = command.refuse("fit", "--ckpt_path=last", "--trainer.max_epochs=3")
    assert err == f"error: the schedule of {RUN.folder} has a fixed number of steps: start a new run to train longer\n"
    assert "start a new run to train longer" in command("fit", "--ckpt_path=last")[1]
    assert differences(outcome(), before) == []


def test_a_checkpoint_from_within_an_epoch_is_not_resumed(command: Command) -> None:
    every = callback("ModelCheckpoint", every_n_train_steps=7, filename="within")
    assert command("fit", *FLAGS, "--trainer.max_epochs=1", every)[0] == 0
    path = RUN.checkpoints / "within.ckpt"
    code, _, err = command("fit", "--ckpt_path", path, "--trainer.max_epochs=2")
    assert (code, err) == (1, f"error: {path} was saved within an epoch: give a checkpoint of a complete one\n")


def test_last_is_the_checkpoint_of_the_newest_untrained(trained: Command) -> None:
    for name in ("a", "b"):
        shutil.copytree("runs/baseline", Path("runs", name))
        config = Path("runs", name, "version_0/config.yaml")
        config.write_text(config.read_text(encoding="utf-8").replace("baseline", name), encoding="utf-8")
    Path("runs/a/version_0/results.json").unlink()
    assert f"resuming {Path('runs/a/version_0/checkpoints/last.ckpt')}" in trained("fit", "--ckpt_path=last")[1]
    assert f"{Path('runs/a/version_0')} is finished" in trained("fit", "--ckpt_path=last")[1], "it is the newest now"
    assert f"{Path('runs/b/version_0')} is finished" in trained("fit", "--ckpt_path=last", "--experiment=b")[1]


def test_a_run_that_another_process_trains_is_not_resumed_and_not_changed(trained: Command) -> None:
    (RUN.folder / "results.json").unlink()
    before = {path: path.read_bytes() for path in RUN.folder.rglob("*") if path.is_file()}
    with FileLock(RUN.folder / ".lock"):
        error = f"error: {RUN.folder} is being trained by another process\n"
        assert trained("fit", "--ckpt_path=last")[::2] == (1, error)
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_ended_by_early_stopping_cannot_be_trained_longer(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = callback("EarlyStopping", monitor="val/loss", min_delta=9, patience=1)
    with monkeypatch.context() as patch:
        patch.setattr(DigitClassifier, "on_test_start", lambda _: terminate())
        assert command("fit", *FLAGS, "--trainer.max_epochs=4", stop)[0] == 143
    assert command("fit", "--ckpt_path=last")[::2] == (0, "")
    assert RUN.results()["fit"]["epochs"] == Checkpoint.read(LAST).content["global_step"] // 20 == 2
    code, _, err = command("fit", "--ckpt_path=last", "--trainer.max_epochs=5")
    assert (code, err) == (2, f"error: a callback ended the training of {LAST}: start a new run to train longer\n")


@pytest.mark.parametrize(
    "limit",
    [
        "--trainer.max_steps=13",
        pytest.param("--trainer.max_steps=20", marks=pytest.mark.slow),
        pytest.param("--trainer.max_steps=33", marks=pytest.mark.slow),
        pytest.param("--trainer.max_time=00:00:00:00", marks=pytest.mark.slow),
    ],
)
def test_a_run_ended_by_a_limit_resumes_as_without_the_limit(
    command: Command, expected: dict[str, Any], limit: str
) -> None:
    assert command("fit", *FLAGS, limit)[0] == 0
    unlimited = ["--trainer.max_steps=-1", "--trainer.max_time=null"]
    assert command("fit", "--ckpt_path=last", *unlimited)[::2] == (0, "")
    assert differences(outcome(), expected) == []


@pytest.mark.parametrize("limit", ["max_epochs=0", "max_steps=13", "max_time=00:00:00:00"])
def test_where_a_limit_cuts_the_first_epoch_the_weights_at_the_end_are_tested(command: Command, limit: str) -> None:
    out = command.succeed("fit", *FLAGS, f"--trainer.{limit}")
    assert "no epoch was validated at its end: the best checkpoint has the weights of the last step" in out
    assert "val/" not in out
    assert [path.name for path in RUN.checkpoints.iterdir()] == ["best.ckpt"]
    assert Checkpoint.read(BEST).content["global_step"] == (13 if "steps" in limit else 0)
    results = RUN.results()
    assert (results["fit"]["epochs"], results["fit"]["best_epoch"]) == (0, None)
    assert results["test"]["total"] == 500
    longer = ["--trainer.max_epochs=2", "--trainer.max_steps=14", "--trainer.max_time=null"]
    out = command.succeed("fit", "--ckpt_path", BEST, *longer)
    assert f"{RUN.folder} has no complete epoch: it starts again" in out


@posix
@pytest.mark.slow
def test_kills_at_random_moments_do_not_change_the_results() -> None:
    """With each recipe of the soak; `python tests/soak.py 200` sends more signals."""
    soak = subprocess.run([sys.executable, TRAIN.parent / "tests/soak.py", "40"], capture_output=True, check=False)
    assert soak.returncode == 0, soak.stdout.decode() + soak.stderr.decode()
