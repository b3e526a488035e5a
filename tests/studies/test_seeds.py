"""`fit --seeds` trains ordinary runs, one after the other, and goes on where it was interrupted."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import RUN, SHORT, Command
from helpers.outcomes import differences, outcome

from mnist_lit import DigitClassifier
from mnist_lit.commands.fit import train
from mnist_lit.runs.folders import Run, new_run
from mnist_lit.studies.seeds import Series, find_runs, format_seeds
from mnist_lit.system.program import PROGRAM
from mnist_lit.system.signals import Stopped

FOLDER = Path("runs/baseline")
FLAGS = [*SHORT, "--model.dropout=0.5", "--trainer.logger=false"]


def run(number: int) -> Run:
    return Run(FOLDER / f"version_{number}")


def weights(run: Run) -> dict[str, Any]:
    state: dict[str, Any] = outcome(run)["checkpoints"]["last.ckpt"]["state_dict"]
    return state


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
    assert sorted(path.name for path in FOLDER.iterdir()) == ["seeds_0.json", *names.values()]

    text = run(1).config.read_text(encoding="utf-8")
    assert "seed: 6\n" in text
    assert "seeds: null\n" in text
    assert command("fit", "--config", run(1).config, "--experiment=single")[0] == 0
    assert not differences(weights(run(1)), weights(Run(Path("runs/single/version_0"))))


@pytest.fixture(scope="session")
def uninterrupted(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment of two seeds that were trained without interruption."""
    from conftest import make_once
    from conftest import train as train_in

    folder = make_once(tmp_path_factory, "seeds", lambda folder: train_in(folder, data_dir, "--seeds=2", *FLAGS))
    return folder / FOLDER


@pytest.mark.parametrize(
    ("step", "again"),
    [
        (33, ["--ckpt_path=last"]),
        (3, ["--seeds=2", *FLAGS]),
        pytest.param(0, ["--seeds=2", *FLAGS, "--ckpt_path=last"], marks=pytest.mark.slow),
        pytest.param(33, ["--seeds=2", *FLAGS], marks=pytest.mark.slow),
    ],
)
def test_interrupted_seeds_end_as_if_never_interrupted(
    command: Command, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, step: int, again: list[str]
) -> None:
    """In the first epoch, of which nothing is saved, or in the second one."""
    shutil.copytree(uninterrupted, "expected")  # `outcome` renames files
    expected = [outcome(Run(Path(f"expected/version_{number}"))) for number in range(2)]
    stop_once(monkeypatch, run(0), step)
    code, _, err = command("fit", "--seeds=2", *FLAGS)
    assert (code, err) == (130, f"error: interrupted: to resume, {PROGRAM} fit --ckpt_path last\n")
    assert "fit" not in run(0).results()
    code, out, err = command("fit", *again)
    assert (code, err) == (0, "")
    assert "seed     777 (1 of 2)" in out
    assert "seed     778 (2 of 2)" in out
    assert [differences(outcome(run(number)), expected[number]) for number in range(2)] == [[]] * 2
    assert sorted(path.name for path in FOLDER.iterdir()) == ["seeds_0.json", "version_0", "version_1"]
    assert "is finished" in command("fit", "--ckpt_path=last")[1]


def test_seeds_that_were_killed_between_two_runs_go_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_one(*args: Any, **kwargs: Any) -> Run:
        if run(0).folder.exists():
            raise Stopped(15)
        return train(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("mnist_lit.studies.seeds.train", train_one)
        assert command("fit", "--seeds=2", *FLAGS, "--trainer.logger=true")[0] == 143
    assert "fit" in run(0).results()
    for flags, message in (
        (["--trainer.max_epochs=3"], "--trainer.max_epochs cannot change"),
        (["--model.dropout=0.1"], "--model.dropout cannot change when a run is resumed"),
        (["--seeds=3"], "has 2 seeds: to train other ones, give another --seed"),
        (["--trainer.devices=2"], "--seeds: each run is trained in one process"),
    ):
        code, _, err = command("fit", "--ckpt_path", (run(0).last or Path()).absolute(), *flags)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    code, out, err = command("fit", "--ckpt_path=last", "--trainer.logger=false")
    assert (code, err) == (0, "")
    assert "fit" in run(1).results()
    assert not list(run(1).folder.glob("events*")), "flags are those of the seeds that are left, too"
    assert format_seeds({777: ("version_0", run(0).results()), 778: ("version_1", run(1).results())}) in out


def test_a_seed_that_diverges_is_reported_and_the_others_are_trained(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = DigitClassifier.training_step

    def diverge(classifier: DigitClassifier, batch: Any) -> Any:
        return step(classifier, batch) * (math.nan if classifier.trainer.default_root_dir.endswith("_0") else 1)

    monkeypatch.setattr(DigitClassifier, "training_step", diverge)
    code, out, err = command("fit", "--seeds=2", *FLAGS)
    assert (code, err) == (1, f"error: 1 of 2 runs failed, the first with seed 777: {run(0).folder}\n")
    assert "seed 777 failed: the loss is nan in epoch 1: " in out
    assert format_seeds({778: ("version_1", run(1).results())}) in out


def test_a_finished_series_is_not_resumed(command: Command) -> None:
    for _ in range(2):
        code, out, err = command("fit", "--seeds=1", *FLAGS)
        assert (code, err) == (0, "")
    assert sorted(path.name for path in FOLDER.glob("seeds_*")) == ["seeds_0.json", "seeds_1.json"]
    assert not differences(weights(run(0)), weights(run(1)))
    assert f"compare {FOLDER / 'seeds_1.json'}" in out, "the folder has other runs"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds=0"], "--seeds: must be >=1 and <=1000"),
        (["--seeds=1001"], "--seeds: must be >=1 and <=1000"),
        (["--seeds=2", "--trainer.fast_dev_run=1"], "records nothing to compare"),
        (["--seeds=2", "--trainer.devices=2"], "--seeds: each run is trained in one process"),
        (["--seeds=2", "--trainer.devices=[0,1]"], "--seeds: each run is trained in one process"),
        (["--seeds=2", "--model.dropout=2"], "dropout"),
        (["--seeds=2", "--data.batch_size=70000"], "--data.batch_size"),
        (["--seeds=2", "--seed=4294967295"], "a seed is less than 4,294,967,296, and 4,294,967,296 is not"),
    ],
)
def test_what_seeds_cannot_do_is_refused(command: Command, flags: list[str], message: str) -> None:
    code, _, err = command("fit", *FLAGS, *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not Path("runs").exists()


def test_seeds_cannot_be_added_to_a_run(trained: Command) -> None:
    code, _, err = trained("fit", "--ckpt_path=last", "--seeds=3")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: --seeds: {RUN.folder} is not in an unfinished series")
    assert RUN.results().keys() == {"fit", "test"}


def test_table_of_seeds() -> None:
    runs = {
        seed: (
            f"version_{seed - 777}",
            {"fit": {"best_val_accuracy": validation, "seconds": 100.0 + seed - 777}, "test": {"accuracy": test}},
        )
        for seed, validation, test in [(777, 0.990, 0.991), (778, 0.992, 0.990), (779, 0.988, 0.989)]
    }
    assert format_seeds(runs).splitlines() == [
        "seed       run           validation        test     seconds",
        "777        version_0         99.00%      99.10%       100.0",
        "778        version_1         99.20%      99.00%       101.0   best",
        "779        version_2         98.80%      98.90%       102.0   worst",
        "mean                         99.00%      99.00%       101.0",
        "95 % from                    98.50%      98.75%",
        "     to                      99.50%      99.25%",
        "sd                            0.20%       0.10%         1.0",
    ]


def test_table_of_seeds_without_validation_or_test() -> None:
    runs: dict[int, tuple[str, dict[str, Any]]] = {
        seed: (f"version_{seed}", {"fit": {"best_val_accuracy": None, "seconds": 1.0}, "test": {"accuracy": accuracy}})
        for seed, accuracy in enumerate((0.99, 0.98))
    }
    lines = format_seeds(runs).splitlines()
    assert lines[1].endswith("best")
    assert lines[3].split() == ["mean", "98.50%", "1.0"]
    for _, results in runs.values():
        del results["test"]
    lines = format_seeds(runs).splitlines()
    assert lines[1].split() == ["0", "version_0", "1.0"]
    assert lines[3].split() == ["mean", "1.0"]
    assert len(format_seeds({0: runs[0]}).splitlines()) == 2, "one run has no mean"


@pytest.fixture
def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Series:
    """The series of two seeds in an empty folder."""
    monkeypatch.chdir(tmp_path)
    FOLDER.mkdir(parents=True)
    series = Series(FOLDER / "seeds_0.json")
    series.path.write_text('{"seeds": [777, 778], "settings": "", "runs": {}}', encoding="utf-8")
    return series


def begin() -> Run:
    """Make a run."""
    run = new_run("baseline")
    run.config.touch()
    return run


def test_a_series_has_ended_when_each_seed_is_finished_or_has_failed(series: Series) -> None:
    first, second = begin(), begin()
    series.add(777, first)
    first.record(fit={})
    assert not series.ended
    series.add(778, second)
    assert not series.ended
    second.fail("diverged")
    assert series.ended
    assert series.runs() == {777: first, 778: second}
    second.config.unlink()
    assert series.runs() == {777: first}, "a run that was deleted is trained again"
    assert not series.ended


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"seeds": [1], "runs": []}',
        '{"seeds": ["x"], "runs": {}, "settings": ""}',
        '{"seeds": [1], "runs": {"1": "../elsewhere/version_0"}, "settings": ""}',
        '{"seeds": [1], "runs": {"1": ".."}, "settings": ""}',
        '{"seeds": [1], "runs": {"1": 3}, "settings": ""}',
    ],
)
def test_a_file_that_is_damaged_or_names_other_folders_is_refused(series: Series, text: str) -> None:
    series.path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"seeds_0.json was not written by fit --seeds, or is damaged"):
        find_runs(series.path)


def test_finished_runs_are_those_of_a_folder_a_run_or_a_series(series: Series) -> None:
    runs = [begin() for _ in range(11)]
    for run in runs:
        run.checkpoints.mkdir()
        (run.checkpoints / "best.ckpt").touch()
        run.record(fit={})
    (runs[3].folder / "results.json").unlink()
    expected = [run for run in runs if run != runs[3]]
    assert find_runs(FOLDER) == expected, "in the order of their numbers"
    assert find_runs(runs[2].folder) == [runs[2]]
    series.add(777, runs[5])
    assert find_runs(series.path) == [runs[5]]
    for path in (Path("runs"), runs[3].folder, Path("nothing")):
        with pytest.raises(FileNotFoundError, match="no finished run in"):
            find_runs(path)


@pytest.mark.slow
def test_seeds_that_start_from_a_checkpoint_do_so_after_an_interruption_too(
    trained: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_from = f"weights from {RUN.checkpoints / 'best.ckpt'}"
    flags = [*FLAGS, f"--init_from={RUN.checkpoints / 'best.ckpt'}", "--experiment=tuned"]
    with monkeypatch.context() as patch:
        stop_once(patch, Run(Path("runs/tuned/version_0")), 5)
        code, out, _ = trained("fit", "--seeds=2", *flags)
    assert (code, out.count(weights_from)) == (130, 1)
    code, out, _ = trained("fit", "--ckpt_path=last")
    assert (code, out.count(weights_from)) == (0, 2), "of the seed that starts again, and of the next one"
