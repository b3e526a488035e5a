"""`fit --seeds` trains ordinary runs, one after the other, and goes on where it was interrupted."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import RUN, SHORT, Command
from helpers.outcomes import differences, outcome

from mnist_lit import DigitClassifier
from mnist_lit.runs.folders import Run, new_run
from mnist_lit.studies.seeds import find_runs, format_seeds, read_series
from mnist_lit.system.program import PROGRAM
from mnist_lit.system.signals import Stopped
from mnist_lit.training.callbacks import DivergedError

FOLDER = Path("runs/baseline")
SERIES = FOLDER / "seeds_0.json"
FLAGS = [*SHORT, "--model.dropout=0.5", "--trainer.logger=false"]


def run(number: int) -> Run:
    return Run(FOLDER / f"version_{number}")


def weights(run: Run) -> dict[str, Any]:
    state: dict[str, Any] = outcome(run)["checkpoints"]["last.ckpt"]["state_dict"]
    return state


def fail_once(monkeypatch: pytest.MonkeyPatch, run: Run, step: int, error: BaseException) -> None:
    """Raise an error before a step of a run; only the first time."""
    training_step, errors = DigitClassifier.training_step, [error]

    def fail(classifier: DigitClassifier, batch: Any) -> Any:
        if errors and classifier.global_step == step and classifier.trainer.default_root_dir.endswith(run.folder.name):
            raise errors.pop()
        return training_step(classifier, batch)

    monkeypatch.setattr(DigitClassifier, "training_step", fail)


def test_each_seed_is_an_ordinary_run(command: Command) -> None:
    out = command.succeed("fit", "--seeds=3", "--seed=5", *FLAGS)
    series = {5: run(0), 6: run(1), 7: run(2)}
    assert "\n".join(format_seeds(series)) in out
    assert f"{PROGRAM} compare {SERIES} {Path('runs/OTHER')}" in out
    assert out.count("next:") == 1
    assert read_series(SERIES) == series
    assert sorted(path.name for path in FOLDER.iterdir()) == ["seeds_0.json", "version_0", "version_1", "version_2"]

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
    """The interruption is in the first epoch, of which nothing is saved, or in the second one."""
    shutil.copytree(uninterrupted, "expected")  # `outcome` renames files
    expected = [outcome(Run(Path(f"expected/version_{number}"))) for number in range(2)]
    fail_once(monkeypatch, run(0), step, Stopped(2))
    code, _, err = command("fit", "--seeds=2", *FLAGS)
    assert (code, err) == (130, f"interrupted; to resume:\n{PROGRAM} fit --ckpt_path last\n")
    assert "fit" not in run(0).results()
    out = command.succeed("fit", *again)
    assert "seed     777 (1 of 2)" in out
    assert "seed     778 (2 of 2)" in out
    assert [differences(outcome(run(number)), expected[number]) for number in range(2)] == [[]] * 2
    assert sorted(path.name for path in FOLDER.iterdir()) == ["seeds_0.json", "version_0", "version_1"]
    assert "is finished" in command("fit", "--ckpt_path=last")[1]


def test_seeds_that_were_killed_between_two_runs_go_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_once(monkeypatch, run(1), 0, Stopped(15))
    assert command("fit", "--seeds=2", *FLAGS, "--trainer.logger=true")[0] == 143
    shutil.rmtree(run(1).folder)
    for flag in ("--trainer.max_epochs=3", "--model.dropout=0.1", "--seeds=3", "--seed=779"):
        err = command.refuse("fit", "--ckpt_path=last", flag)
        assert err.endswith(f"{run(0).folder} is in an unfinished series: leave out flags that change it\n")
    out = command.succeed("fit", "--ckpt_path=last", "--trainer.logger=false")
    assert not list(run(1).folder.glob("events*")), "flags are those of the seeds that are left, too"
    assert "\n".join(format_seeds({777: run(0), 778: run(1)})) in out


def test_a_seed_that_diverges_is_reported_and_the_others_are_trained(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_once(monkeypatch, run(0), 20, DivergedError("the loss is nan"))
    code, out, err = command("fit", "--seeds=2", *FLAGS)
    assert (code, err) == (1, f"error: 1 of 2 runs failed, the first is {run(0).folder}\n")
    assert "seed 777 failed: the loss is nan: " in out
    assert "\n".join(format_seeds({777: run(0), 778: run(1)})) in out
    assert "\n777   version_0  failed\n" in out
    assert "\n1 of 2 runs failed, and are not in these figures\n" in out


def test_a_finished_series_is_not_resumed(command: Command) -> None:
    for _ in range(2):
        out = command.succeed("fit", "--seeds=1", *FLAGS)
    assert sorted(path.name for path in FOLDER.glob("seeds_*")) == ["seeds_0.json", "seeds_1.json"]
    assert not differences(weights(run(0)), weights(run(1)))
    assert f"compare {FOLDER / 'seeds_1.json'}" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds=1001"], "--seeds: must be >=1 and <=1000"),
        (["--seeds=2", "--trainer.fast_dev_run=1"], "records nothing to compare"),
        (["--seeds=2", "--trainer.devices=2"], "--seeds: each run is trained in one process"),
        (["--seeds=2", "--model.dropout=2"], "dropout"),
        (["--seeds=2", "--data.batch_size=70000"], "--data.batch_size"),
        (["--seeds=2", "--seed=4294967295"], "a seed is less than 4,294,967,296, and 4,294,967,296 is not"),
    ],
)
def test_what_seeds_cannot_do_is_refused(command: Command, flags: list[str], message: str) -> None:
    err = command.refuse("fit", *FLAGS, *flags)
    assert message in err
    assert not Path("runs").exists()


def test_seeds_cannot_be_added_to_a_run(trained: Command) -> None:
    err = trained.refuse("fit", "--ckpt_path=last", "--seeds=3")
    assert err.startswith("error: --seeds cannot change when a run is resumed")
    assert RUN.results().keys() == {"fit", "test", "made_by"}


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Three runs that have begun, of a series of four seeds, and a fourth run of another series."""
    monkeypatch.chdir(tmp_path)
    runs = [new_run("baseline") for _ in range(4)]
    for made in runs:
        made.config.write_text("data: {val_size: 5000}\ntrainer: {limit_val_batches: null}\n", encoding="utf-8")
    series = {"seeds": [5, 6, 7, 8], "runs": {6: "version_1", 5: "version_0", 7: "version_2"}}
    SERIES.write_text(json.dumps(series), encoding="utf-8")
    return runs


def finish(made: Run, accuracy: float | None, **stages: Any) -> None:
    """Finish a run with a validation accuracy."""
    made.record(fit={"best_val_accuracy": accuracy, "epochs": 2, "seconds": 100}, **stages)
    made.checkpoints.mkdir()
    (made.checkpoints / "best.ckpt").touch()


def test_table_of_seeds(begun: list[Run]) -> None:
    for i, (validation, test) in enumerate([(0.990, 0.990), (0.992, 0.991), (0.988, 0.989)]):
        finish(begun[i], validation, test={"accuracy": test, "total": 10_000})
    finish(begun[3], None)
    extremes, others = "best seed 778, worst seed 779", "other seeds and images, 95 %"
    table = [
        "seed  run        validation  test    seconds",
        "777   version_0  99.00%      99.00%  100.0",
        "778   version_1  99.20%      99.10%  100.0",
        "779   version_2  98.80%      98.90%  100.0",
        f"validation: 99.00% ± 0.20%, {extremes}; {others}: 98.43% to 99.57% (seeds ± 0.50, images ± 0.28)",
        f"test: 99.00% ± 0.10%, {extremes}; {others}: 98.68% to 99.32% (seeds ± 0.25, images ± 0.20)",
    ]
    assert format_seeds(dict(enumerate(begun[:3], start=777))) == table
    lines = format_seeds(dict(enumerate(begun, start=777)))
    assert lines[4:] == ["780   version_3                      100.0"], "a run without validation or test"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"seeds": [1], "runs": []}', '{"seeds": [1e999], "runs": {}}', "[" * 5_000]
)
def test_a_damaged_file_is_named(begun: list[Run], text: str) -> None:
    assert begun
    SERIES.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"seeds_0.json was not written by fit --seeds, or is damaged"):
        find_runs(SERIES)


def test_finished_runs_are_those_of_a_folder_a_run_or_a_series(begun: list[Run]) -> None:
    for made in begun[1:]:
        finish(made, 0.9)
    assert find_runs(FOLDER) == (begun[1:], [])
    assert find_runs(begun[2].folder) == ([begun[2]], [])
    assert find_runs(SERIES) == (begun[1:3], [])
    for path in (Path("runs"), begun[0].folder, Path("nothing")):
        with pytest.raises(FileNotFoundError, match="no finished run in"):
            find_runs(path)


@pytest.mark.slow
def test_seeds_that_start_from_a_checkpoint_do_so_after_an_interruption_too(
    trained: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_from = f"weights from {RUN.checkpoints / 'best.ckpt'}"
    flags = [*FLAGS, f"--init_from={RUN.checkpoints / 'best.ckpt'}", "--experiment=tuned"]
    with monkeypatch.context() as patch:
        fail_once(patch, Run(Path("runs/tuned/version_0")), 5, Stopped(2))
        code, out, _ = trained("fit", "--seeds=2", *flags)
    assert (code, out.count(weights_from)) == (130, 1)
    code, out, _ = trained("fit", "--ckpt_path=last")
    assert (code, out.count(weights_from)) == (0, 2), "of the seed that starts again, and of the next one"
