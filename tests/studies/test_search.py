"""Hyperparameter search: its trials, sampled values, pruning, failures, and how a study is resumed."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import TRAIN, Command, callback, training_set_only, uninstall
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mnist_lit import DigitClassifier
from mnist_lit.commands.fit import Start, train
from mnist_lit.commands.flags import build_parser, parse
from mnist_lit.runs.folders import Run, new_run
from mnist_lit.studies.search import build_sampler
from mnist_lit.system.signals import Stopped

FOLDER = Path("runs/search")
SPACE = {
    "model.learning_rate": {"low": 0.001, "high": 0.01, "log": True},
    "model.channels": [[2], [2, 4]],
    "data.shift": {"low": 0, "high": 2},
}
SETTINGS = {
    "experiment": "search",
    "trials": 3,
    "space": SPACE,
    "trainer": {"max_epochs": 2, "limit_train_batches": 5, "limit_val_batches": 5, "logger": False},
}


@pytest.fixture
def config(command: Command) -> str:
    """The flag with the config file of a short search."""
    assert command is not None  # changes into the folder
    Path("search.yaml").write_text(json.dumps(SETTINGS), encoding="utf-8")
    return "--config=search.yaml"


def load_study() -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(FOLDER / "study.journal")))
    return optuna.load_study(study_name="search", storage=storage)


def test_each_trial_is_a_run_and_fit_trains_the_best_one(command: Command, config: str) -> None:
    with training_set_only():
        code, out, err = command("search", config, "--trainer.logger=true")
    assert (code, err) == (0, "")
    trials = load_study().trials
    assert len(trials) == 3
    best = max(trial.value or 0 for trial in trials)
    for number, trial in enumerate(trials):
        run = Run(FOLDER / f"version_{number}")
        assert trial.user_attrs["run"] == run.folder.name
        assert run.results()["fit"]["best_val_accuracy"] == trial.value
        assert "test" not in run.results()
        assert list(run.folder.glob("events*"))
        saved = parse(build_parser("fit"), [f"--config={run.config}"])
        assert saved.model.learning_rate == trial.params["model.learning_rate"]
        assert str(saved.model.channels) == trial.params["model.channels"]
        assert saved.data.shift in {0, 1, 2}
    assert "3 complete" in out
    table = out[out.index("val/accuracy  run") :].splitlines()
    assert table[1].startswith(f"{best:12.4f}  version_")
    code, out, _ = command("fit", f"--config={FOLDER / 'best.yaml'}")
    assert code == 0
    assert f"best validation accuracy {best:.2%}" in out
    assert Path("runs/search_best/version_0").is_dir()


def test_study_is_resumed_until_it_has_the_number_of_trials(
    command: Command, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Run] = []

    def interrupt(*args: Any, **kwargs: Any) -> Run:
        if len(runs) == 1:
            raise Stopped(15)
        runs.append(train(*args, **kwargs))
        return runs[-1]

    with monkeypatch.context() as patch:
        patch.setattr("mnist_lit.studies.search.train", interrupt)
        assert command("search", config)[0] == 143
    assert states() == ["COMPLETE", "FAIL"]
    code, out, _ = command("search", config)
    assert code == 0
    assert re.findall(r"^trial (\d) of 3", out, re.MULTILINE) == ["3"]
    assert "2 complete, 1 fail" in out
    assert "trial " not in command("search", config)[1], "the study is complete"
    assert "trial 4 of 4" in command("search", config, "--trials=4")[1]


def test_sampled_values_depend_on_the_seed(command: Command, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(start: Start, *_: Any, opened: Callable[[Run], None], **__: Any) -> Run:
        opened(run := new_run(start.config.experiment))
        run.config.write_bytes(build_parser("fit").dump(start.config, skip_unset=False).encode())
        run.record(fit={"best_val_accuracy": start.config.model.learning_rate})
        return run

    monkeypatch.setattr("mnist_lit.studies.search.train", train)
    sampled = []
    for flag in ("--seed=777", "--seed=777", "--seed=1"):
        shutil.rmtree("runs", ignore_errors=True)
        assert command("search", config, flag)[0] == 0
        sampled.append([trial.params for trial in load_study().trials])
    assert sampled[0] == sampled[1] != sampled[2]
    assert len({trial["model.learning_rate"] for trial in sampled[0]}) == 3


def test_trials_in_parallel_sample_different_values() -> None:
    study = optuna.create_study()
    values = set()
    for _ in range(12):
        trial = study.ask()  # as a process does while trials of others are running
        study.sampler = build_sampler(777, trial, SPACE)
        values.add(trial.suggest_float("model.learning_rate", 0, 1))
    assert len(values) == 12


@pytest.mark.parametrize("seeds", [{"low": 5, "high": 9, "step": 2}, [9, 1, 2]])
def test_no_seed_is_repeated_before_all_were_used(seeds: Any) -> None:
    study = optuna.create_study()
    used = []
    for number in range(7):
        trial = study.ask()
        study.sampler = build_sampler(777, trial, {"seed": seeds})
        value = (
            trial.suggest_categorical("seed", ["9", "1", "2"])
            if isinstance(seeds, list)
            else trial.suggest_int("seed", **seeds)
        )
        if number != 1:  # is interrupted: another trial uses its seed
            study.tell(trial, 0.5)
            used.append(value)
    assert len(set(used[:3])) == len(set(used)) == 3


def test_failed_trial_does_not_end_the_study(command: Command, config: str) -> None:
    space = SETTINGS | {"space": {"model.dropout": [2.0], "data.batch_size": [100]}, "trials": 2}
    Path("search.yaml").write_text(json.dumps(space), encoding="utf-8")
    code, out, err = command("search", config)
    assert (code, err) == (1, "error: no trial is complete, so there is no best one\n")
    assert out.count("the trial failed: dropout must be at least 0 and less than 1, got 2.0") == 2
    assert "2 fail\n" in out


def test_trial_without_a_validation_fails(command: Command, config: str) -> None:
    code, out, _ = command("search", config, "--trials=1", "--trainer.check_val_every_n_epoch=5")
    assert code == 1
    assert "the trial failed: it ended before its first validation" in out


def test_pruned_trial_ends_early(command: Command, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1)
    code, out, _ = command("search", config)
    assert code == 0
    assert out.count("the trial was pruned: other trials had a higher accuracy") == 1
    assert "2 complete, 1 pruned" in out
    assert [Run(FOLDER / f"version_{n}").results()["fit"]["epochs"] for n in range(3)] == [2, 1, 2]
    assert list(load_study().trials[1].intermediate_values) == [0]


def test_trial_that_another_callback_has_stopped_is_not_continued(
    command: Command, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda _: False)
    stop = callback("EarlyStopping", monitor="val/loss", min_delta=9, patience=1)
    assert command("search", config, "--trials=1", "--trainer.max_epochs=4", stop)[0] == 0
    assert Run(FOLDER / "version_0").results()["fit"]["epochs"] == 2


def test_trial_that_failed_in_its_training_is_not_resumed(
    command: Command, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(classifier: DigitClassifier) -> None:
        if classifier.current_epoch == 1:
            raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(DigitClassifier, "on_train_epoch_end", fail)
        assert command("search", config, "--trials=1")[0] == 1
    assert (FOLDER / "version_0/checkpoints/last.ckpt").is_file()
    code, _, err = command("fit", "--ckpt_path=last")
    failed = FOLDER / "version_0"
    assert (code, err) == (1, f"error: no run to resume: {failed} failed, see {failed / 'failed.txt'}\n")


@pytest.mark.slow
def test_several_processes_run_trials_of_one_study(config: str) -> None:
    argv = [sys.executable, str(TRAIN), "search", config]
    processes = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate() and process.returncode for process in processes] == [0, 0]
    trials = load_study().trials
    assert [trial.state.is_finished() for trial in trials] == [True] * 3
    assert len({trial.user_attrs["run"] for trial in trials}) == 3


def begin_trial(*, opened: bool = True) -> Run:
    """Begin a trial, as another process would; unless `opened`, it has no run yet."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(FOLDER / "study.journal")))
    study = optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True)
    trial, run = study.ask(), new_run("search")
    if opened:
        trial.set_user_attr("run", run.folder.name)
    return run


def states() -> list[str]:
    return [trial.state.name for trial in load_study().trials]


def test_a_trial_of_a_killed_process_fails_at_the_next_start_and_one_that_is_trained_is_left_alone(
    command: Command, config: str
) -> None:
    begin_trial()
    with begin_trial().lock():
        code, out, err = command("search", config, "--trials=3")
    assert (code, err) == (0, "")
    assert states() == ["FAIL", "RUNNING", "COMPLETE"]
    assert re.findall(r"^trial (\d) of 3", out, re.MULTILINE) == ["3"]
    assert "other processes still run trials: the last one reports" in out
    assert not (FOLDER / "best.yaml").exists()
    assert "1 complete, 2 fail" in command("search", config, "--trials=3")[1]
    assert (FOLDER / "best.yaml").is_file()


def test_a_trial_without_a_run_may_be_starting_and_is_failed_after_an_hour(
    command: Command, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_trial(opened=False)
    assert command("search", config, "--trials=1")[0] == 0
    assert states() == ["RUNNING"]

    class Later(datetime):
        @classmethod
        def now(cls, *_: Any) -> "Later":
            return super().now() + timedelta(hours=1)

    monkeypatch.setattr("mnist_lit.studies.search.datetime", Later)
    assert command("search", config, "--trials=1")[0] == 1, "no trial is complete"
    assert states() == ["FAIL"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--space={}", "--trials requires --space, or --config search"),
        ('--space={"model.chanels": [[1]]}', "--space: no setting model.chanels: did you mean model.channels?"),
        ('--space={"model": [1]}', "--space: no setting model"),
        ('--space={"model.classes": [10]}', "--space: no setting model.classes"),
        ('--space={"data.shift": {"low": 1}}', "--space: data.shift needs a list of choices, or low and high"),
        ('--space={"data.shift": []}', "--space: data.shift needs a list of choices, or low and high"),
        ('--space={"data.batch_size": {"low": 10.5, "high": 20}}', "--space: data.batch_size: expected int, got 10.5"),
        ('--space={"seed": {"low": 0, "high": 1e3}}', "--space: seed needs a list of choices, or integers low <= high"),
        ('--space={"seed": {"low": 3, "high": 1}}', "--space: seed needs a list of choices, or integers low <= high"),
        ('--space={"seed": [-1]}', "--space: seed: -1 must be >=0"),
        ("--data.val_size=0", "a search needs a validation: --data.val_size and --trainer.limit_val_batches must"),
        ("--trainer.devices=2", "search: each run is trained in one process: leave --trainer.devices and"),
        ("--trainer.fast_dev_run=3", "--trainer.fast_dev_run is for fit: a search compares complete runs"),
        ("--ckpt_path=last", "no flag --ckpt_path"),
    ],
)
def test_usage_error_leaves_no_run(command: Command, config: str, flag: str, message: str) -> None:
    code, _, err = command("search", config, flag)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {message}")
    assert not Path("runs").exists()


def test_invalid_range_and_changed_choices_are_usage_errors(command: Command, config: str) -> None:
    for choice in ('{"low": 3, "high": 1}', '{"low": "a", "high": 1}'):
        code, _, err = command("search", config, f'--space={{"data.shift": {choice}}}')
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("error: --space: data.shift: ")
    assert not Path("runs").exists()
    assert command("search", config, "--trials=1", '--space={"data.shift": [1, 2]}')[0] == 0
    code, _, err = command("search", config, "--trials=2", '--space={"data.shift": [1, 3]}')
    assert (code, err.count("\n")) == (2, 1)


def test_error_without_optuna_says_what_to_install(
    command: Command, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninstall("optuna", monkeypatch)
    code, _, err = command("search", config)
    assert (code, err) == (2, "error: a search needs optuna: pip install -e '.[search]'\n")
