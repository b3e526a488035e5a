"""A series of seeds: recorded in a file, shared through locks, and found again by one of its runs."""

import json
from pathlib import Path

import pytest

from mnist_lit.runs.folders import Run, new_run
from mnist_lit.runs.series import Claim, Series, find_checkpoints, find_runs, find_series, join_series

SEEDS = [777, 778, 779]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def begin(series: Series, claim: Claim | None) -> Run:
    """Make the run of a claimed seed."""
    assert claim is not None
    run = new_run("a")
    run.config.touch()
    series.add(claim.seed, run)
    return run


def test_seeds_are_claimed_in_turn_and_once() -> None:
    series, first = join_series("a", SEEDS, "settings")
    claims = [first, series.claim(), series.claim()]
    assert [claim.seed for claim in claims if claim] == SEEDS
    assert series.claim() is None
    for claim in claims:
        assert claim is not None
        run = begin(series, claim)
        run.record(fit={})
        claim.release()
    assert series.claim() is None
    assert series.ended
    assert series.runs() == {seed: Run(Path(f"runs/a/version_{i}")) for i, seed in enumerate(SEEDS)}


def test_released_seeds_are_claimed_again_with_their_run_until_it_is_finished() -> None:
    series, claim = join_series("a", SEEDS, "settings")
    run = begin(series, claim)
    assert claim is not None
    claim.release()
    again = series.claim()
    assert again is not None
    assert (again.seed, again.run) == (777, run)
    run.fail("diverged")
    again.release()
    other = series.claim()
    assert other is not None
    assert (other.seed, other.run) == (778, None), "a failed run is not repeated"


def test_a_run_that_was_deleted_or_never_began_is_trained_anew() -> None:
    series, claim = join_series("a", SEEDS, "settings")
    run = begin(series, claim)
    run.config.unlink()
    assert claim is not None
    claim.release()
    again = series.claim()
    assert again is not None
    assert (again.seed, again.run) == (777, None)


def test_a_series_that_is_being_trained_is_joined_if_it_is_alike() -> None:
    series, claim = join_series("a", SEEDS, "settings")
    joined, second = join_series("a", SEEDS, "settings")
    assert joined == series
    assert second is not None
    assert second.seed == 778
    for experiment, seeds, settings in (("b", SEEDS, "settings"), ("a", SEEDS[:2], "settings"), ("a", SEEDS, "other")):
        assert join_series(experiment, seeds, settings)[0] != series
    assert claim is not None
    claim.release()
    second.release()
    assert join_series("a", SEEDS, "settings")[0] != series, "nobody trains it any more"


def test_free_seeds_are_neither_claimed_nor_trained() -> None:
    series, claim = join_series("a", SEEDS, "settings")
    assert series.free() == [778, 779]
    run = begin(series, claim)
    assert claim is not None
    claim.release()
    assert series.free() == SEEDS
    run.record(fit={})
    assert series.free() == [778, 779]


def test_a_series_is_joined_while_the_processes_that_train_it_are_starting() -> None:
    series, claim = join_series("a", SEEDS, "settings")
    assert claim is not None
    with series.shared(), series.shared():
        claim.release()
        joined, second = join_series("a", SEEDS, "settings")
        assert joined == series
        assert second is not None
        second.release()
    assert join_series("a", SEEDS, "settings")[0] != series


def test_the_number_of_threads_stays_that_of_the_beginning() -> None:
    series, claim = join_series("a", SEEDS, "settings", threads=3)
    begin(series, claim)
    assert join_series("a", SEEDS, "settings", threads=1)[0] == series
    assert series.threads == 3
    content = json.loads(series.path.read_text(encoding="utf-8"))
    del content["threads"]
    series.write(content)  # as by an earlier version
    assert series.threads is None


def test_the_series_of_a_run_is_found() -> None:
    series, claim = join_series("a", SEEDS, "settings")
    run = begin(series, claim)
    assert find_series(run) == series
    assert find_series(new_run("a")) is None
    assert find_series(Run(Path("elsewhere/a/version_0"))) is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"seeds": [1], "runs": []}',
        '{"seeds": ["x"], "runs": {}, "settings": ""}',
        '{"seeds": [1], "runs": {}, "settings": "", "threads": "x"}',
    ],
)
def test_a_damaged_file_is_named(text: str) -> None:
    (run := new_run("a")).config.touch()
    path = Path("runs/a/seeds_0.json")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"seeds_0.json is no seeds_<n>.json of fit --seeds, or is damaged"):
        find_series(run)


def test_a_series_without_runs_is_removed() -> None:
    series, claim = join_series("a", SEEDS, "settings")
    assert claim is not None
    series.clean()
    assert series.path.exists(), "it is being trained"
    claim.release()
    series.clean()
    assert not Path("runs").exists()


def test_lock_files_are_removed_at_the_end() -> None:
    series, claim = join_series("a", SEEDS[:1], "settings")
    begin(series, claim).record(fit={})
    assert claim is not None
    claim.release()
    series.clean()
    assert sorted(path.name for path in Path("runs/a").iterdir()) == [".seeds.lock", "seeds_0.json", "version_0"]


def test_finished_runs_are_those_of_a_folder_a_run_or_a_series() -> None:
    runs = [new_run("a") for _ in range(12)]
    for run in runs[:11]:
        run.config.touch()
        run.checkpoints.mkdir()
        (run.checkpoints / "best.ckpt").touch()
        run.record(fit={})
    (runs[3].folder / "results.json").unlink()
    expected = [run for run in runs[:11] if run != runs[3]]
    assert find_runs(Path("runs/a")) == expected, "in the order of their numbers"
    assert find_runs(runs[2].folder) == [runs[2]]
    series, claim = join_series("a", SEEDS, "settings")
    assert claim is not None
    series.add(777, runs[5])
    assert find_runs(series.path) == [runs[5]]
    first, second = (run.checkpoints / "best.ckpt" for run in (runs[5], runs[2]))
    assert find_checkpoints([str(series.path), str(runs[2].folder)]) == [first, second]
    assert find_checkpoints([str(runs[2].folder), str(second.absolute())]) == [second.absolute()], "each once"
    for path in (Path("runs"), runs[3].folder, Path("nothing")):
        with pytest.raises(FileNotFoundError, match="no finished run in"):
            find_runs(path)
