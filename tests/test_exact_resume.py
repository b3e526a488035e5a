"""A run that is interrupted, wherever and however, goes on to exactly what it would have been."""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from conftest import RUN, SHORT, TRAIN, Command, callback, posix
from filelock import FileLock
from outcomes import differences, outcome
from torch import Tensor

from mnist_lit import DigitClassifier
from mnist_lit.datasets.loading import Batch
from mnist_lit.runs import checkpoints
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.system.files import write_atomically
from mnist_lit.training import checkpointing

LAST, BEST = RUN.checkpoints / "last.ckpt", RUN.checkpoints / "best.ckpt"
FLAGS = [*SHORT, "--save_every=6"]
CONFIGS = TRAIN.parent / "configs"


@pytest.fixture
def snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Copies of the run's folder: what there was just after each checkpoint had been saved, if the run died then."""
    taken: list[Path] = []

    def save(path: Path, content: bytes) -> None:
        write_atomically(path, content)
        taken.append(tmp_path / f"{len(taken)}" / path.name)
        shutil.copytree(RUN.folder, taken[-1].parent, ignore=shutil.ignore_patterns(".lock"))

    for module in (
        checkpoints,
        checkpointing,
    ):  # where no validation selects the best checkpoint, it is a copy of the last
        monkeypatch.setattr(module, "write_atomically", save)
    return taken


THREE = "--model.channels=[2,4,4]"  # blocks, as those configs have
CHANCE = ["--model.dropout=0.2", "--data.rotation=10", "--data.elastic=0.5"]
KINDS = {
    "default": [],
    "limit of steps within an epoch": ["--trainer.max_steps=33"],
    "limit of steps before the first validation": ["--trainer.max_steps=13"],
    "limit of time": ["--trainer.max_time=00:01:00:00"],
    "validations within an epoch": ["--trainer.val_check_interval=7"],
    "validations across epochs": ["--trainer.val_check_interval=13", "--trainer.check_val_every_n_epoch=null"],
    "a validation every other epoch": ["--trainer.check_val_every_n_epoch=2"],
    "no validation": ["--data.val_size=0", "--trainer.max_steps=33"],
    "accumulation": ["--trainer.accumulate_grad_batches=3"],
    "accumulation and validations": ["--trainer.accumulate_grad_batches=3", "--trainer.val_check_interval=3"],
    "chance and schedule": [*CHANCE, "--model.schedule=one_cycle", "--model.batch_norm=true"],
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
    "averaged weights": [*CHANCE, "--model.batch_norm=true", callback("WeightAveraging")],
    "moving average": [
        *CHANCE,
        "--model.batch_norm=true",
        callback("EMAWeightAveraging", decay=0.9, update_starting_at_step=8),
        "--trainer.val_check_interval=7",
    ],
    "several loggers": ["--trainer.logger=CSVLogger", "--trainer.log_every_n_steps=5"],
    "fast": [f"--config={CONFIGS}/fast.yaml", "--experiment=baseline", THREE, "--trainer.max_epochs=2"],
    "best": [f"--config={CONFIGS}/best.yaml", "--experiment=baseline", THREE, "--trainer.max_epochs=2"],
}
QUICK = {"default"}  # in the default suite


@pytest.mark.parametrize(
    "flags",
    [pytest.param(f, id=k, marks=[] if k in QUICK else [pytest.mark.slow]) for k, f in KINDS.items()],
)
def test_training_goes_on_bit_for_bit_from_every_checkpoint(
    command: Command, snapshots: list[Path], flags: list[str]
) -> None:
    assert command("fit", *FLAGS, *flags)[0] == 0
    expected = outcome()
    assert {path.name for path in snapshots} == {"best.ckpt", "last.ckpt"}
    assert len(snapshots) >= 4
    for snapshot in snapshots.copy():
        shutil.rmtree(RUN.folder)
        shutil.copytree(snapshot.parent, RUN.folder)
        code, out, err = command("fit", "--ckpt_path", RUN.checkpoints / snapshot.name)
        assert (code, err) == (0, ""), "no other flag is needed"
        assert f"resuming {RUN.checkpoints / snapshot.name}" in out
        assert differences(outcome(), expected) == []


@pytest.fixture
def interrupted(command: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Let something happen in step 27 of 40; return what is expected of the run in the end, and how it ended now."""

    def interrupt(happen: Callable[[], None]) -> tuple[dict[str, Any], tuple[int, str, str]]:
        assert command("fit", *FLAGS)[0] == 0
        expected = outcome()
        shutil.rmtree("runs")
        with monkeypatch.context() as patch:
            in_step(27, happen, patch)
            return expected, command("fit", *FLAGS)

    return interrupt


def in_step(number: int, happen: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    step = DigitClassifier.training_step

    def training_step(classifier: DigitClassifier, batch: Batch) -> Tensor:
        if classifier.global_step == number - 1:
            happen()
        return step(classifier, batch)

    monkeypatch.setattr(DigitClassifier, "training_step", training_step)


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow),
    ],
)
def test_a_signal_lets_the_step_be_finished_and_saved_and_says_how_to_go_on(
    command: Command, interrupted: Callable[..., Any], number: int, code: int, word: str
) -> None:
    expected, ended = interrupted(lambda: signal.raise_signal(number))
    assert ended[0] == code
    assert ended[2] == f"error: {word}: to resume, python {sys.argv[0]} fit --ckpt_path {LAST}\n"
    assert Checkpoint.read(LAST).content["global_step"] == 27
    assert command("fit", "--ckpt_path", LAST)[0] == 0
    assert differences(outcome(), expected) == []


def test_several_interruptions_change_nothing(
    command: Command, interrupted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = interrupted(terminate)
    for step in (28, 35):
        with monkeypatch.context() as patch:
            in_step(step, terminate, patch)
            assert command("fit", "--ckpt_path=last")[0] == 143
        assert Checkpoint.read(LAST).content["global_step"] == step
    assert command("fit", "--ckpt_path=last")[0] == 0
    assert differences(outcome(), expected) == []


@posix
def test_a_disk_that_is_full_is_told_and_the_checkpoint_before_stays_whole(
    command: Command, interrupted: Callable[..., Any]
) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        expected, (code, _, err) = interrupted(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1])))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, err) == (1, f"error: {LAST}: File too large\n")
    assert sorted(path.name for path in RUN.checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert command("fit", "--ckpt_path=last")[0] == 0
    assert differences(outcome(), expected) == []


def test_checkpoints_do_not_pass_through_another_file_system(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", "/nowhere")
        assert command("fit", *FLAGS)[0] == 0
    assert LAST.is_file()


@pytest.mark.parametrize("hook", [pytest.param("on_train_end", marks=pytest.mark.slow), "on_test_epoch_end"])
def test_a_run_that_was_interrupted_after_its_last_step_or_while_it_was_tested_is_tested_when_it_goes_on(
    command: Command, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    assert command("fit", *FLAGS)[0] == 0
    expected = outcome()
    shutil.rmtree("runs")
    with monkeypatch.context() as patch:
        patch.setattr(DigitClassifier, hook, lambda _: terminate())
        assert command("fit", *FLAGS)[0] == 143
    assert RUN.results() == {}
    assert command("fit", "--ckpt_path=last")[::2] == (0, "")
    assert differences(outcome(), expected) == []


def test_a_damaged_last_checkpoint_is_told_and_the_newest_whole_one_taken(
    command: Command, interrupted: Callable[..., Any]
) -> None:
    expected, _ = interrupted(terminate)
    LAST.write_bytes(LAST.read_bytes()[:-100])
    stray = RUN.checkpoints / ".last.ckpt.1.part"
    stray.touch()
    code, out, err = command("fit", "--ckpt_path=last")
    assert (code, err) == (0, "")
    assert f"{LAST} is not a complete checkpoint: taking {BEST} instead" in out
    assert differences(outcome(), expected) == []
    assert not stray.exists()


def test_a_run_that_had_saved_nothing_starts_again(command: Command) -> None:
    assert command("fit", *FLAGS)[0] == 0
    expected = outcome()
    shutil.rmtree(RUN.checkpoints)
    (RUN.folder / "results.json").unlink()
    code, out, _ = command("fit", "--ckpt_path=last")
    assert code == 0
    assert f"{RUN.folder} was interrupted before its first checkpoint: it starts again" in out
    assert differences(outcome(), expected) == []


def test_a_finished_run_is_said_to_be_finished(command: Command) -> None:
    assert command("fit", *FLAGS)[0] == 0
    expected = outcome(), RUN.results()
    assert command("fit", "--ckpt_path=last") == (
        0,
        f"{RUN.folder} is finished: give more --trainer.max_epochs to train it longer\n",
        "",
    )
    assert differences((outcome(), RUN.results()), expected) == []


def test_training_longer_equals_training_that_long_from_the_start(command: Command) -> None:
    assert command("fit", *FLAGS)[0] == 0
    expected = outcome()
    shutil.rmtree("runs")
    assert command("fit", *FLAGS, "--trainer.max_epochs=1")[0] == 0
    assert command("fit", "--ckpt_path=last", "--trainer.max_epochs=2")[0] == 0
    assert differences(outcome(), expected) == []


def test_a_run_cannot_be_trained_longer_than_its_schedule(command: Command) -> None:
    assert command("fit", *FLAGS, "--model.schedule=one_cycle")[0] == 0
    expected = outcome()
    code, _, err = command("fit", "--ckpt_path=last", "--trainer.max_epochs=3")
    assert code == 2
    assert err == f"error: the schedule of {RUN.folder} has a fixed number of steps: start a new run to train longer\n"
    assert differences(outcome(), expected) == []


def test_last_is_of_the_newest_unfinished_run(command: Command) -> None:
    for name in ("a", "b"):
        assert command("fit", *FLAGS, f"--experiment={name}", "--trainer.max_epochs=1")[0] == 0
    Path("runs/a/version_0/results.json").unlink()
    assert f"resuming {Path('runs/a/version_0/checkpoints/last.ckpt')}" in command("fit", "--ckpt_path=last")[1]
    assert f"{Path('runs/a/version_0')} is finished" in command("fit", "--ckpt_path=last")[1], "it is the newest now"
    assert f"{Path('runs/b/version_0')} is finished" in command("fit", "--ckpt_path=last", "--experiment=b")[1]


def test_what_cannot_be_resumed_is_told_in_one_line_and_left_as_it_is(command: Command) -> None:
    assert command("fit", "--ckpt_path=last")[2] == "error: no run in runs: train one with fit\n"
    assert command("fit", *FLAGS, "--trainer.max_epochs=1")[0] == 0
    (RUN.folder / "results.json").unlink()
    before = {path: path.read_bytes() for path in RUN.folder.rglob("*") if path.is_file()}
    shutil.copy(LAST, "mine.ckpt")
    with FileLock(RUN.folder / ".lock"):
        for flags, message in (
            (["--ckpt_path=mine.ckpt"], "mine.ckpt lies in no run"),
            (["--ckpt_path=last"], f"{RUN.folder} is being trained by another process"),
        ):
            code, _, err = command("fit", *flags)
            assert (code, err.count("\n")) == (1, 1)
            assert err.startswith(f"error: {message}")
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_that_early_stopping_ended_trains_no_further(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
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
        pytest.param("--trainer.max_time=00:00:00:00", marks=pytest.mark.slow),
    ],
)
def test_training_on_from_a_limit_equals_training_without_it(command: Command, limit: str) -> None:
    assert command("fit", *FLAGS, "--trainer.max_steps=33")[0] == 0
    expected = outcome()
    shutil.rmtree("runs")
    assert command("fit", *FLAGS, limit)[0] == 0
    further = ["--trainer.max_steps=33", "--trainer.max_time=null"]
    assert command("fit", "--ckpt_path=last", *further)[::2] == (0, "")
    assert differences(outcome(), expected) == []


def test_the_best_score_goes_on_where_a_run_has_been_moved(command: Command, interrupted: Callable[..., Any]) -> None:
    expected, _ = interrupted(terminate)
    elsewhere = Path("runs/other/version_7")
    elsewhere.parent.mkdir()
    RUN.folder.rename(elsewhere)
    assert command("fit", "--ckpt_path=last")[::2] == (0, "")
    elsewhere.rename(RUN.folder)
    assert outcome()["fit"] == expected["fit"]


KILLS = 12  # soak.py tries more, of many recipes


@posix
@pytest.mark.slow
def test_no_kill_at_any_moment_changes_the_end(command: Command) -> None:
    """At seeded random times, a quarter of them during a save; every other run is killed a second time."""
    flags = [*FLAGS, "--trainer.max_epochs=3", "--trainer.limit_train_batches=100", "--save_every=9"]
    start = monotonic()
    subprocess.run([sys.executable, TRAIN, "fit", *flags], check=True, stdout=subprocess.DEVNULL)
    seconds = monotonic() - start
    expected = outcome()
    chance = random.Random(777)
    for number in range(KILLS):
        shutil.rmtree("runs")
        killed = kill(flags, chance.uniform(0.3, 1) * seconds, saving=number % 4 == 0)
        if killed and number % 2:
            kill(["--ckpt_path=last"], chance.uniform(0.5, 1) * seconds, saving=False)
        if not RUN.config.is_file():
            assert command("fit", *flags)[0] == 0, "it was killed before it was a run"
        elif "fit" not in RUN.results():
            assert command("fit", "--ckpt_path=last")[::2] == (0, "")
        assert differences(outcome(), expected) == []
        assert not list(Path("runs").rglob("*.part"))


def kill(flags: list[str], seconds: float, *, saving: bool) -> bool:
    """Start a training, kill it after a time or (if `saving`) in the next save; return whether it was alive."""
    process = subprocess.Popen(
        [sys.executable, TRAIN, "fit", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    sleep(seconds)
    while saving and process.poll() is None and not list(RUN.checkpoints.glob(".*.part")):
        pass
    process.kill()
    return process.wait() == -signal.SIGKILL
