"""Hyperparameter search: its trials, sampled values, pruning, failures, and how a study is resumed."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import optuna
import pytest
from conftest import TRAIN, Command, callback, training_set_only
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from mnist_lit import DigitClassifier
from mnist_lit.commands.fit import Start
from mnist_lit.commands.flags import build_parser, parse
from mnist_lit.runs.folders import Run, new_run
from mnist_lit.system.program import PROGRAM
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


def open_study() -> optuna.Study:
    """Return the study, as another process would; a new one if there is none."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(FOLDER / "study.journal")))
    return optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True)


def begin_trial(*, opened: bool = True) -> Run:
    """Begin a trial, as another process would; unless `opened`, it has no run yet."""
    trial, run = open_study().ask(), new_run("search")
    if opened:
        trial.set_user_attr("run", run.folder.name)
    return run


def states() -> list[str]:
    return [trial.state.name for trial in open_study().trials]


def test_each_trial_is_a_run_and_fit_trains_the_best_one(command: Command, config: str) -> None:
    with training_set_only():
        code, out, err = command("search", config, "--trainer.logger=true")
    assert (code, err) == (0, "")
    trials = open_study().trials
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
    assert "3 complete" in out
    assert re.search(r"^as the best of 3 trials, it may owe \d\.\d\d points to chance: to confirm", out, re.MULTILINE)
    assert re.search(rf"^val/accuracy  run\n{best:.4f} +version_", out, re.MULTILINE)
    out = command.succeed("fit", f"--config={FOLDER / 'best.yaml'}")
    confirmed = parse(build_parser("fit"), ["--config=runs/search_best/version_0/config.yaml"])
    assert confirmed.seed == 778, "not that of the trials: it would contain the selected run"


def test_study_is_resumed_until_it_has_the_number_of_trials(
    command: Command, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("search", config, "--trials=1")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("mnist_lit.studies.search.train", Mock(side_effect=Stopped(15)))
        code, _, err = command("search", config)
    assert (code, err) == (143, f"terminated; to resume:\n{PROGRAM} search {config}\n")
    assert states() == ["COMPLETE", "FAIL"]
    out = command.succeed("search", config)
    assert re.findall(r"^trial (\d) of 3", out, re.MULTILINE) == ["3"]
    assert "2 complete, 1 fail" in out
    assert "trial " not in command("search", config)[1], "the study is complete"
    assert "trial 4 of 4" in command("search", config, "--trials=4")[1]


def test_sampled_values_depend_on_the_seed(command: Command, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(start: Start, *_: Any, opened: Callable[[Run], None], **__: Any) -> Run:
        opened(run := new_run(start.config.experiment))
        start.config.data.val_size = 500
        run.config.write_bytes(build_parser("fit").dump(start.config, skip_unset=False).encode())
        run.record(fit={"best_val_accuracy": start.config.model.learning_rate})
        return run

    monkeypatch.setattr("mnist_lit.studies.search.train", train)
    sampled = []
    for flag in ("--seed=777", "--seed=777", "--seed=1"):
        shutil.rmtree("runs", ignore_errors=True)
        assert command("search", config, flag)[0] == 0
        sampled.append([trial.params for trial in open_study().trials])
    assert sampled[0] == sampled[1] != sampled[2]
    assert len({trial["model.learning_rate"] for trial in sampled[0]}) == 3
    shutil.rmtree("runs")
    begin_trial(opened=False)
    assert command("search", config, "--trials=2")[0] == 0
    assert open_study().trials[1].params == sampled[0][1], "each process samples the values of its trial"


def test_failed_trial_does_not_end_the_study_and_is_not_resumed(
    command: Command, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DigitClassifier, "on_train_epoch_end", Mock(side_effect=ValueError("a bug")))
    code, out, err = command("search", config, "--trials=2")
    assert (code, err) == (1, "error: no trial is complete, so there is no best one\n")
    assert out.count("the trial failed: a bug\n") == 2
    assert "2 fail\n" in out
    failed = FOLDER / "version_1"
    code, _, err = command("fit", "--ckpt_path=last")
    assert (code, err) == (1, f"error: no run to resume: {failed} failed, see {failed / 'failed.txt'}\n")


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ('--space={"model.dropout": [2.0]}', "dropout must be at least 0 and less than 1, got 2.0"),
        ("--trainer.check_val_every_n_epoch=5", "it ended before its first validation"),
    ],
)
def test_a_failed_trial_is_told(command: Command, config: str, flag: str, reason: str) -> None:
    code, out, _ = command("search", config, "--trials=1", flag)
    assert code == 1
    assert f"the trial failed: {reason}" in out


def test_pruned_trial_ends_early(command: Command, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1)
    out = command.succeed("search", config)
    assert out.count("the trial was pruned: other trials had a higher accuracy") == 1
    assert "2 complete, 1 pruned" in out
    assert [Run(FOLDER / f"version_{n}").results()["fit"]["epochs"] for n in range(3)] == [2, 1, 2]
    assert list(open_study().trials[1].intermediate_values) == [0]


def test_trial_that_another_callback_has_stopped_is_not_continued(
    command: Command, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda _: False)
    stop = callback("EarlyStopping", monitor="val/loss", min_delta=9, patience=1)
    assert command("search", config, "--trials=1", "--trainer.max_epochs=4", stop)[0] == 0
    assert Run(FOLDER / "version_0").results()["fit"]["epochs"] == 2


@pytest.mark.slow
def test_several_processes_run_trials_of_one_study(config: str) -> None:
    argv = [sys.executable, str(TRAIN), "search", config]
    processes = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate() and process.returncode for process in processes] == [0, 0]
    trials = open_study().trials
    assert [trial.state.is_finished() for trial in trials] == [True] * 3
    assert len({trial.user_attrs["run"] for trial in trials}) == 3


def test_a_trial_of_a_killed_process_fails_at_the_next_start_and_one_that_is_trained_is_left_alone(
    command: Command, config: str
) -> None:
    begin_trial()
    begin_trial(opened=False)
    with begin_trial().lock():
        code, out, err = command("search", config, "--trials=4")
    assert (code, err) == (0, "")
    assert states() == ["FAIL", "RUNNING", "RUNNING", "COMPLETE"], "one without a run may be starting"
    assert re.findall(r"^trial (\d) of 4", out, re.MULTILINE) == ["4"]
    assert "1 complete, 1 fail, 2 running" in out
    assert "1 complete, 2 fail, 1 running" in command("search", config, "--trials=4")[1]


def test_a_range_is_of_the_type_of_its_setting(command: Command, config: str) -> None:
    """Whole bounds of a rate are bounds of fractions: 0 and 1 alone would be no search."""
    space = {"model.dropout": {"low": 0, "high": 1}, "data.batch_size": {"low": 10, "high": 90}}
    assert command("search", config, f"--space={json.dumps(space)}", "--trainer.max_epochs=1")[0] == 0
    values = [trial.params for trial in open_study().trials]
    assert all(0 < value["model.dropout"] < 1 for value in values)
    assert all(type(value["data.batch_size"]) is int for value in values)


def test_what_was_tried_is_not_trained_again(command: Command, config: str) -> None:
    space = {"model.learning_rate": [0.01, 1e15], "model.padding": [None]}
    out = command.succeed("search", config, f"--space={json.dumps(space)}", "--trials=7", "--trainer.max_epochs=1")
    trials = open_study().trials
    assert len(trials) == 7
    assert "model.padding null" in out
    results = {run: (trial.state.name, trial.value) for trial in trials if (run := trial.user_attrs["run"])}
    assert sorted(state for state, _ in results.values()) == ["COMPLETE", "FAIL"]
    assert all(results[trial.user_attrs["run"]] == (trial.state.name, trial.value) for trial in trials)
    assert len(list(FOLDER.glob("version_*"))) == 2
    assert out.count("not trained again: these are the values of version_") == 5
    assert out.count("  model.learning_rate 0.01, model.padding null\n") == 1, "each run once among the best"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--space={}", "--trials requires --space or --config search"),
        ('--space={"model.chanels": [[1]]}', "--space: no setting model.chanels: did you mean model.channels?"),
        ('--space={"data.shift": {"low": 1}}', "--space: data.shift requires a list of choices, or low and high"),
        ('--space={"data.shift": []}', "--space: data.shift requires a list of choices, or low and high"),
        (
            '--space={"model.dropout": {"low": 0.1, "high": 0.5, "step": 0.15}}',
            "--space: model.dropout requires a list",
        ),
        ('--space={"data.shift": {"low": 3, "high": 1}}', "--space: data.shift requires a list of choices, or low"),
        ('--space={"data.shift": {"low": "a", "high": 1}}', "--space: data.shift requires a list of choices, or low"),
        ('--space={"data.batch_size": {"low": 10.5, "high": 20}}', "--data.batch_size: expected int, got 10.5"),
        ('--space={"seed": [-1]}', "--seed: -1 must be >=0"),
        ("--data.val_size=0", "search requires a validation: --data.val_size and --trainer.limit_val_batches must"),
        ("--trainer.devices=2", "search: each run is trained in one process: leave --trainer.devices and"),
        ("--trainer.fast_dev_run=3", "search: --trainer.fast_dev_run records nothing to compare"),
        ("--ckpt_path=last", "no flag --ckpt_path"),
        ("--data.dataset=banners", "dataset must be MNIST, FashionMNIST, KMNIST, CIFAR10 or a folder of images, got"),
        ('--space={"data.dataset": ["MNIST", "banners"]}', "dataset must be MNIST, FashionMNIST, KMNIST, CIFAR10 or"),
    ],
)
def test_usage_error_leaves_no_run(command: Command, config: str, flag: str, message: str) -> None:
    err = command.refuse("search", config, flag)
    assert err.startswith(f"error: {message}")
    assert not Path("runs").exists()


def test_changed_choices_are_a_usage_error(command: Command, config: str) -> None:
    assert command("search", config, "--trials=1", '--space={"data.shift": [1, 2]}')[0] == 0
    err = command.refuse("search", config, "--trials=2", '--space={"data.shift": [1, 3]}')
    assert "this study has other space data.shift: give another --experiment" in err
    assert states() == ["COMPLETE"], "no trial was used up"


def test_other_settings_are_another_study(command: Command, config: str) -> None:
    """Its best trial would be the one that was trained for more epochs."""
    assert command("search", config, "--trials=1")[0] == 0
    err = command.refuse("search", config, "--trials=2", "--trainer.max_epochs=3", "--seed=1")
    assert "this study has other seed, trainer.max_epochs: give another --experiment" in err
    assert command("search", config, "--trials=2", "--trainer.logger=true")[0] == 0, "which changes no result"


def test_error_without_optuna_says_what_to_install(
    command: Command, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "mnist_lit.studies.search", raising=False)
    assert command.refuse("search", config) == "error: search requires optuna: pip install -e '.[search]'\n"
