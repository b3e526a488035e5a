"""Run folders: created, locked, and searched for checkpoints and results."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mnist_lit.runs.folders import Run, find_checkpoint, find_resumable, new_run, run_of


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_run(experiment: str, age: int, *names: str) -> Run:
    """Make a run that was started `age` seconds ago, with checkpoints."""
    run = new_run(experiment)
    run.checkpoints.mkdir()
    for name in names:
        (run.checkpoints / f"{name}.ckpt").touch()
    run.config.touch()
    os.utime(run.config, (1e9 - age, 1e9 - age))
    return run


def test_new_run_has_the_next_version_number() -> None:
    assert new_run("a").folder == Path("runs/a/version_0")
    Path("runs/a/version_9").mkdir()
    Path("runs/a/version_x").mkdir()
    assert new_run("a").folder == Path("runs/a/version_10")
    assert new_run("b").folder == Path("runs/b/version_0")


def test_runs_created_in_parallel_have_different_folders() -> None:
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(new_run, ["same"] * 40))
    assert {run.folder.name for run in runs} == {f"version_{n}" for n in range(40)}


def test_checkpoint_is_that_of_the_newest_run_that_has_it_or_a_path() -> None:
    with pytest.raises(FileNotFoundError, match=r"no run with a best checkpoint in runs: train one with fit"):
        find_checkpoint("best")
    make_run("a", 20, "best", "last")
    newer = make_run("b", 10, "best")
    make_run("c", 0)
    assert find_checkpoint("best") == newer.checkpoints / "best.ckpt"
    assert find_checkpoint("last") == Path("runs/a/version_0/checkpoints/last.ckpt")
    assert find_checkpoint("best", experiment="a") == (path := Path("runs/a/version_0/checkpoints/best.ckpt"))
    assert find_checkpoint(str(path)) == path
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at missing.ckpt: give best, last or the path"):
        find_checkpoint("missing.ckpt")


def test_the_run_to_resume_is_the_newest_unfinished_one_that_has_not_failed() -> None:
    with pytest.raises(FileNotFoundError, match=r"^no run in runs: train one with fit$"):
        find_resumable("last")
    old, middle, new = make_run("a", 30, "last"), make_run("a", 20), make_run("a", 10, "last")
    new.record(fit={})
    assert find_resumable("last") == (middle, None), "it has no complete epoch"
    middle.fail("the loss is nan")
    assert find_resumable("last") == (old, old.checkpoints / "last.ckpt")
    old.record(fit={})
    assert find_resumable("last") == (new, new.checkpoints / "last.ckpt"), "all are finished"
    new.fail("")
    old.fail("")
    with pytest.raises(FileNotFoundError, match=r"^no run to resume: .*version_2 failed, see .*version_2.failed.txt$"):
        find_resumable("last")
    Path("my.ckpt").touch()
    with pytest.raises(ValueError, match=r"^my.ckpt is not in a run folder"):
        find_resumable("my.ckpt")


def test_run_of_a_checkpoint_is_relative_to_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("a", 0, "best")
    assert run_of(run.checkpoints / "best.ckpt") == run
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert run_of(Path("../runs/a/version_0/checkpoints/best.ckpt")) == Run(Path("../runs/a/version_0"))
    assert run_of(Path("../elsewhere/../runs/a/version_0/checkpoints/best.ckpt").absolute()) == (
        Run(Path("../runs/a/version_0"))
    )
    assert run_of(Path("best.ckpt")) is None


def test_results_are_recorded_by_stage() -> None:
    run = new_run("a")
    assert run.results() == {}
    run.record(fit={"epochs": 1})
    run.record(test={"correct": 1})
    run.record(test={"correct": 2})
    assert run.results() == {"fit": {"epochs": 1}, "test": {"correct": 2}}


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", "3", '{"fit": 3}'])
def test_damaged_results_are_an_error_and_not_replaced(text: str) -> None:
    run = new_run("a")
    (path := run.folder / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"version_0.results.json (is not valid JSON|does not contain the results)"):
        run.record(test={})
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.usefixtures("open_files_stay")
def test_lock_excludes_others_also_where_open_files_cannot_be_removed() -> None:
    run = new_run("a")
    with run.lock():
        assert run.is_locked()
        with pytest.raises(OSError, match="is being trained by another process"), run.lock():
            pass
    assert not run.is_locked()
    with run.lock():
        pass


def test_run_of_a_checkpoint_on_another_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("a", 0, "best")

    def refuse(_: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", refuse)
    assert run_of(run.checkpoints / "best.ckpt") == Run(run.folder.absolute())
