"""`fit --seeds` trains ordinary runs, resumes what was interrupted, and shares the seeds among processes."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import torch
from conftest import RUN, SHORT, TRAIN, Command, posix
from filelock import FileLock
from outcomes import differences, outcome

from mnist_lit import DigitClassifier
from mnist_lit.commands import fit as module
from mnist_lit.commands.settings import build_parser, parse
from mnist_lit.runs.checkpoints import Checkpoint
from mnist_lit.runs.folders import Run
from mnist_lit.runs.results import format_seeds
from mnist_lit.runs.series import Claim, Series, join_series
from mnist_lit.system.program import PROGRAM
from mnist_lit.system.signals import Stopped

FOLDER = Path("runs/baseline")
FLAGS = [*SHORT, "--model.dropout=0.5"]


def run(number: int) -> Run:
    return Run(FOLDER / f"version_{number}")


def weights(run: Run) -> dict[str, Any]:
    state: dict[str, Any] = outcome(run)["checkpoints"]["last.ckpt"]["state_dict"]
    return state


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore the number of threads at the end of a test."""
    number = torch.get_num_threads()
    yield
    torch.set_num_threads(number)


def stop_once(monkeypatch: pytest.MonkeyPatch, run: Run, step: int) -> None:
    """End the program, as a signal would, before a step of a run; only the first time."""
    training_step = DigitClassifier.training_step
    stopped: list[int] = []

    def stop(classifier: DigitClassifier, batch: Any) -> Any:
        here = Path(classifier.trainer.default_root_dir).name == run.folder.name
        if here and classifier.global_step == step and not stopped:
            stopped.append(step)
            raise Stopped(2)
        return training_step(classifier, batch)

    monkeypatch.setattr(DigitClassifier, "training_step", stop)


def test_each_seed_is_an_ordinary_run(command: Command) -> None:
    code, out, err = command("fit", "--seeds=3", "--seed=5", *FLAGS)
    assert (code, err) == (0, "")
    names = {seed: f"version_{seed - 5}" for seed in (5, 6, 7)}
    results = {seed: (name, Run(FOLDER / name).results()) for seed, name in names.items()}
    assert format_seeds(results) in out
    assert f"{PROGRAM} compare {FOLDER} {Path('runs/OTHER')}" in out
    assert out.count("next:") == 1
    assert json.loads((FOLDER / "seeds_0.json").read_text(encoding="utf-8"))["seeds"] == [5, 6, 7]
    assert sorted(path.name for path in FOLDER.iterdir() if path.name[0] != ".") == ["seeds_0.json", *names.values()]
    assert [path.name for path in FOLDER.glob(".*")] == [".seeds.lock"]

    text = run(1).config.read_text(encoding="utf-8")
    assert "seed: 6\n" in text
    assert "seeds: null\n" in text
    assert command("fit", "--config", run(1).config, "--experiment=single")[0] == 0
    assert not differences(weights(run(1)), weights(Run(Path("runs/single/version_0"))))


@pytest.mark.parametrize("step", [pytest.param(0, marks=pytest.mark.slow), 33])
def test_interrupted_seeds_end_as_if_never_interrupted(
    command: Command, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    flags = [*FLAGS, "--save_every=6"]
    assert command("fit", "--seeds=2", *flags)[0] == 0
    expected = [outcome(run(number)) for number in range(2)]
    shutil.rmtree("runs")
    stop_once(monkeypatch, run(0), step)
    assert command("fit", "--seeds=2", *flags)[0] == 130
    assert "fit" not in run(0).results()
    which = ["--ckpt_path=last"] if step else ["--seeds=2", *flags, "--ckpt_path=last"]
    code, out, err = command("fit", *which)
    assert (code, err) == (0, "")
    assert "seed     777 (1 of 2)" in out
    assert [differences(outcome(run(number)), expected[number]) for number in range(2)] == [[]] * 2
    assert not run(2).folder.exists()
    assert "is finished" in command("fit", "--ckpt_path=last")[1]


def test_seeds_that_were_killed_between_two_runs_go_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    train = module.train  # type: ignore[attr-defined]  # as fit calls it

    def train_one(*args: Any, **kwargs: Any) -> Run:
        if run(0).folder.exists():
            raise Stopped(15)
        return train(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", train_one)
        assert command("fit", "--seeds=2", *FLAGS)[0] == 143
    assert "fit" in run(0).results()
    for flags, message in (
        (["--trainer.max_epochs=3"], "--trainer.max_epochs cannot change"),
        (["--seeds=3"], "has 2 seeds; for others, start fit with another --seed"),
        (["--trainer.devices=2"], "a run has one process then"),
    ):
        code, _, err = command("fit", "--ckpt_path", (run(0).last or Path()).absolute(), *flags)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    code, out, err = command("fit", "--ckpt_path=last", "--trainer.logger=false")
    assert (code, err) == (0, "")
    assert "fit" in run(1).results()
    assert not list(run(1).folder.glob("events*")), "flags are those of the seeds that are left, too"
    assert format_seeds({777: ("version_0", run(0).results()), 778: ("version_1", run(1).results())}) in out


def test_a_run_that_diverges_does_not_end_the_others(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    step = DigitClassifier.training_step

    def diverge(classifier: DigitClassifier, batch: Any) -> Any:
        return step(classifier, batch) * (math.nan if classifier.trainer.default_root_dir.endswith("_0") else 1)

    monkeypatch.setattr(DigitClassifier, "training_step", diverge)
    code, out, err = command("fit", "--seeds=2", *FLAGS)
    assert (code, err) == (1, f"error: 1 of 2 runs failed, the first with seed 777: {run(0).folder}\n")
    assert "seed 777 failed: " in out
    assert format_seeds({778: ("version_1", run(1).results())}) in out


def test_seeds_are_shared_with_a_process_that_trains_some(command: Command) -> None:
    """This one claims the first, as another process would, whose machine settings are others."""
    argv = ["--seeds=3", *FLAGS]
    config = parse(build_parser("fit"), [*argv, "--save_every=9", "--trainer.logger=false"])
    series, claim = join_series("baseline", [777, 778, 779], module.digest_settings(config))
    assert claim is not None
    code, out, err = command("fit", *argv)
    assert (code, err) == (0, "")
    assert re.findall(r"^seed     (\d+) ", out, re.MULTILINE) == ["778", "779"]
    assert "another process trains 777, and prints the table at its end" in out
    assert series.runs().keys() == {778, 779}
    failure = "of 2 processes, these failed: 2 (exit code -9)"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_run_workers", lambda *_: failure)
        patch.setattr(Series, "claim", lambda _: Claim(778, None, FileLock("another.lock")))
        code, out, err = command("fit", "--ckpt_path=last", "--processes=2")
        assert (code, err) == (1, f"error: {failure}\n")
        assert "another process trains 777, " in out
        claim.release()
        best = run(0).checkpoints / "best.ckpt"
        code, _, err = command("fit", f"--ckpt_path={best}", "--processes=2")
        assert (code, err.startswith(f"error: {failure}: to train what is left of 777, ")) == (1, True)
    code, out, err = command("fit", "--ckpt_path=last")
    assert (code, err) == (0, "")
    assert re.findall(r"^seed     (\d+) ", out, re.MULTILINE) == ["777"]
    assert "95 % from" in out
    assert [path.name for path in FOLDER.glob("seeds_*")] == ["seeds_0.json"]


@pytest.mark.usefixtures("threads")
@pytest.mark.slow
def test_processes_train_the_seeds_as_one_with_as_many_threads(command: Command) -> None:
    code, out, err = command("fit", "--seeds=3", "--processes=2", *FLAGS)
    assert (code, err) == (0, "")
    content = json.loads((FOLDER / "seeds_0.json").read_text(encoding="utf-8"))
    assert sorted(re.findall(r"^[12]│ seed     (\d+) ", out, re.MULTILINE)) == sorted(content["runs"])
    assert {line[:3] for line in out.split(f"\n{FOLDER}\n")[0].splitlines()} == {"1│ ", "2│ "}
    runs = {int(seed): Run(FOLDER / name) for seed, name in content["runs"].items()}
    assert runs.keys() == {777, 778, 779}
    results = {seed: (runs[seed].folder.name, runs[seed].results()) for seed in sorted(runs)}
    assert out.count(format_seeds(results)) == out.count("next:") == 1
    assert [path.name for path in FOLDER.glob(".*")] == [".seeds.lock"]
    assert "processes: 1\n" in runs[777].config.read_text(encoding="utf-8")
    torch.set_num_threads(content["threads"])
    assert command("fit", "--seeds=3", "--experiment=one", *FLAGS)[0] == 0
    for number, seed in enumerate(runs):
        assert not differences(weights(runs[seed]), weights(Run(Path(f"runs/one/version_{seed - 777}")))), number


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_seeds_resume_with_the_threads_that_they_began_with(
    command: Command, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    flags = ["--seeds=2", *FLAGS]
    torch.set_num_threads(1)
    assert command("fit", *flags)[0] == 0
    expected = [weights(run(number)) for number in range(2)]
    shutil.rmtree("runs")
    stop_once(monkeypatch, run(0), 33)
    assert command("fit", *flags)[0] == 130
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    used: list[int] = []
    monkeypatch.setattr(DigitClassifier, "on_train_start", lambda _: used.append(torch.get_num_threads()))
    code, out, err = command("fit", "--ckpt_path=last", f"--processes={processes}")
    assert (code, err) == (0, "")
    assert f"resuming {run(0).last}" in out
    assert used == ([1, 1] if processes == 1 else []), "workers train elsewhere"
    assert torch.get_num_threads() == 2, "it is restored"
    assert not differences([weights(run(number)) for number in range(2)], expected)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "kill"])
def test_processes_save_and_stop_on_ctrl_c_and_when_their_parent_is_killed(command: Command, how: str) -> None:
    """In the first epoch, so that nothing is saved before."""
    flags = ["--seeds=2", "--processes=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=true"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    argv = [sys.executable, str(TRAIN), "fit", *flags, "--save_every=1000"]
    with subprocess.Popen(argv, start_new_session=True, **pipes) as parent:
        begun: set[str] = set()
        assert parent.stdout is not None
        while len(begun) < 2:
            line = parent.stdout.readline()
            assert line
            begun.update(re.findall(r"^(.)│ epoch  1/15: .* [1-9]\d*/550 ", line))
        if how == "kill":
            parent.kill()
        else:
            os.killpg(parent.pid, signal.SIGINT)
        _, printed = parent.communicate()
    if how == "Ctrl-C":
        message = f"error: interrupted: to resume, python {TRAIN} fit --ckpt_path last\n"
        assert (parent.returncode, printed) == (130, message)
    series = Series(FOLDER / "seeds_0.json")
    wait_until(lambda: series.free() == [777, 778])
    for number in range(2):
        last = run(number).last
        assert last is not None
        assert 0 < Checkpoint.read(last).content["global_step"] < 550
        assert not run(number).ended
    code, _, err = command("fit", "--ckpt_path=last", "--processes=2", "--seeds=3")
    assert (code, err.count("\n")) == (2, 1), "it is found, and is this series"


def wait_until(condition: Callable[[], bool]) -> None:
    end = monotonic() + 60
    while not condition():
        assert monotonic() < end
        sleep(0.05)


def test_a_seed_that_a_failed_process_has_left_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: Any, **variables: str) -> str:
        series = Series(Path(variables["MNIST_LIT_SERIES"]))
        assert series.is_being_trained(), "others join it"
        claim = series.claim()
        assert claim is not None
        assert command("fit", "--seeds=3", *FLAGS, "--seed=777")[0] == 0, "another terminal trains the others"
        run(5).folder.mkdir()
        run(5).config.touch()
        series.add(claim.seed, run(5))
        claim.release()
        return "of 2 processes, these failed: 1 (exit code -9)"

    monkeypatch.setattr(module, "run_workers", train)
    code, out, err = command("fit", "--seeds=3", "--processes=2", *FLAGS)
    assert code == 1
    left = f"to train what is left of 777, {PROGRAM} fit --ckpt_path last"
    assert err == f"error: of 2 processes, these failed: 1 (exit code -9): {left}\n"
    assert re.findall(r"^(77\d) ", out, re.MULTILINE) == ["778", "779"]
    assert [path.name for path in FOLDER.glob("seeds_*")] == ["seeds_0.json"]


@pytest.mark.slow
def test_processes_that_are_started_alike_share_the_seeds(command: Command) -> None:
    assert command is not None  # changes into the folder
    argv = [sys.executable, str(TRAIN), "fit", "--seeds=4", *FLAGS, "--trainer.max_epochs=8"]
    processes = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate() for process in processes]
    assert [(process.returncode, err) for process, (_, err) in zip(processes, outputs, strict=True)] == [(0, "")] * 2
    trained = [[int(seed) for seed in re.findall(r"^seed     (\d+) ", out, re.MULTILINE)] for out, _ in outputs]
    assert sorted(trained[0] + trained[1]) == [777, 778, 779, 780]
    assert all(trained), "both took part"
    assert all("fit" in run(number).results() for number in range(4))
    assert any("95 % from" in out for out, _ in outputs)


def test_a_finished_series_is_not_joined(command: Command) -> None:
    for _ in range(2):
        code, out, err = command("fit", "--seeds=1", *SHORT)
        assert (code, err) == (0, "")
    assert sorted(path.name for path in FOLDER.glob("seeds_*")) == ["seeds_0.json", "seeds_1.json"]
    assert not differences(weights(run(0)), weights(run(1)))
    assert f"compare {FOLDER / 'seeds_1.json'}" in out, "the folder has other runs"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds=0"], "--seeds"),
        (["--seeds=2", "--trainer.fast_dev_run=1"], "records nothing to compare"),
        (["--seeds=2", "--trainer.devices=2"], "a run has one process then"),
        (["--seeds=2", "--trainer.devices=[0,1]"], "a run has one process then"),
        (["--seeds=2", "--model.dropout=2"], "dropout"),
        pytest.param(["--seeds=2", "--processes=2", "--model.dropout=2"], "dropout", marks=pytest.mark.slow),
        (["--seeds=2", "--processes=2", "--trainer.devices=2"], "a run has one process then: give --processes"),
        (["--seeds=2", "--processes=0"], "--processes"),
        (["--seeds=2", "--processes=65"], "--processes: 65 must be >=1 and <=64"),
        (["--processes=2"], "--processes: they share the seeds of several runs: give --seeds, too"),
        (["--seeds=2", "--data.batch_size=70000"], "--data.batch_size"),
        (["--seeds=2", "--seed=4294967295"], "4,294,967,296 is no seed"),
    ],
)
def test_what_seeds_cannot_do_is_refused(command: Command, flags: list[str], message: str) -> None:
    code, _, err = command("fit", *FLAGS, *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not Path("runs").exists()


@pytest.mark.parametrize("flag", ["seeds", "processes"])
def test_seeds_cannot_be_added_to_a_run(trained: Command, flag: str) -> None:
    code, _, err = trained("fit", "--ckpt_path=last", f"--{flag}=3")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: --{flag}: {RUN.folder} is no run of several seeds that is unfinished")
    assert RUN.results().keys() == {"fit", "test"}
