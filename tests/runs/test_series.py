"""A series of seeds: recorded in a file, shared through locks, and found again by one of its runs."""

from pathlib import Path

import pytest

from mnist_lit.runs.folders import Run, new_run
from mnist_lit.runs.series import Claim, Series, find_series, join_series

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


def test_the_series_of_a_run_is_found() -> None:
    series, claim = join_series("a", SEEDS, "settings")
    run = begin(series, claim)
    assert find_series(run) == series
    assert find_series(new_run("a")) is None
    assert find_series(Run(Path("elsewhere/a/version_0"))) is None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"seeds": [1], "runs": []}', '{"seeds": ["x"], "runs": {}, "settings": ""}']
)
def test_a_damaged_file_is_named(text: str) -> None:
    (run := new_run("a")).config.touch()
    path = Path("runs/a/seeds_0.json")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"seeds_0.json does not contain the seeds of runs: remove it"):
        find_series(run)
