"""Verdicts about recipes: as statsmodels computes them, wrong as rarely and right as often as they say."""

from math import sqrt

import pytest
from numpy.random import default_rng
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from mnist_lit.studies.statistics import McNemar, difference, holm_levels, mean_interval, seeds_needed

FIRST = {777: 0.9882, 1: 0.9890, 2: 0.9880}
SECOND = {2: 0.9905, 777: 0.9903, 1: 0.9912}


def test_interval_of_a_mean() -> None:
    values = default_rng(0).normal(0.99, 0.001, 5).tolist()
    for confidence in (0.95, 0.99):
        expected = DescrStatsW(values).tconfint_mean(1 - confidence)
        assert mean_interval(values, confidence) == pytest.approx(expected, abs=1e-12)
    assert mean_interval([0.5, 0.5]) is None
    assert mean_interval([0.5]) is None
    assert mean_interval([0.1, 0.9]) == (0, 1), "no accuracy is outside"


def test_the_same_seeds_are_paired() -> None:
    found = difference(FIRST, SECOND)
    differences = DescrStatsW([SECOND[seed] - FIRST[seed] for seed in FIRST])
    assert found.freedom == 1
    assert found.seeds == (3, 3)
    assert found.mean == pytest.approx(differences.mean)
    assert found.sd == pytest.approx(differences.std * sqrt(3 / 2))
    assert found.p == pytest.approx(differences.ttest_mean(0)[1])
    assert found.interval(0.99) == pytest.approx(differences.tconfint_mean(0.01))


def test_other_seeds_are_compared_by_welch() -> None:
    others = {seed + 10: accuracy for seed, accuracy in SECOND.items()} | {5: 0.99}
    found = difference(FIRST, others)
    means = CompareMeans(DescrStatsW([*others.values()]), DescrStatsW([*FIRST.values()]))
    assert found.seeds == (3, 4)
    assert found.p == pytest.approx(means.ttest_ind(usevar="unequal")[1])
    assert 1 <= found.freedom <= 2
    assert found.interval(0.95) == pytest.approx(means.tconfint_diff(usevar="unequal"))


@pytest.mark.parametrize("counts", [(0, 0), (12, 15), (3, 20), (40, 9)])
def test_mcnemar(counts: tuple[int, int]) -> None:
    expected = mcnemar([[900, counts[0]], [counts[1], 50]], exact=True).pvalue if any(counts) else 1
    assert McNemar(*counts).p == pytest.approx(expected)


def test_holm_rejects_what_statsmodels_rejects() -> None:
    for seed, size in enumerate((1, 3, 10, 10, 10)):
        p_values = default_rng(seed).uniform(0, 1, size) ** 3
        rejected = [bool(p <= level) for p, level in zip(p_values, holm_levels(p_values.tolist()), strict=True)]
        assert rejected == multipletests(p_values, 0.05, method="holm")[0].tolist()


@pytest.mark.parametrize(("freedom", "test", "factor"), [(1.0, TTestPower(), 1), (2.0, TTestIndPower(), sqrt(2))])
def test_seeds_needed_for_a_difference(freedom: float, test: TTestPower | TTestIndPower, factor: float) -> None:
    """For two recipes, statsmodels takes the standard deviation of a run, which is smaller by √2."""
    for level in (0.05, 0.05 / 3):
        fewest = 1_000
        for ratio in (0.2, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 10.0, 12.0, 20.0, 50.0):
            found = seeds_needed(0.002, ratio * 0.002, freedom, level=level)
            assert found is not None
            assert found <= fewest, "a larger difference needs no more"
            fewest = found
            if ratio < 4:  # statsmodels' power is NaN for some larger ones
                assert test.power(ratio * factor, found, level) >= 0.8
                assert found == 2 or test.power(ratio * factor, found - 1, level) < 0.8
    assert seeds_needed(0.002, 0.00002, freedom) is None


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seeds", [3, 10])
def test_equal_recipes_are_told_apart_in_at_most_5_percent(seeds: int, paired: bool) -> None:  # noqa: FBT001
    assert share_told_apart(0, seeds, paired=paired) <= 0.05 + 3 * sqrt(0.05 * 0.95 / 1_000)


@pytest.mark.parametrize("paired", [True, False])
def test_a_difference_of_one_sd_is_found_as_often_as_promised(paired: bool) -> None:  # noqa: FBT001
    seeds = seeds_needed(sqrt(2), 1, freedom=1 if paired else 2)
    assert seeds is not None
    assert share_told_apart(1, seeds, paired=paired) == pytest.approx(0.8, abs=0.05)


def share_told_apart(shift: float, seeds: int, *, paired: bool) -> float:
    """Return the share of 1,000 comparisons of recipes that are told apart; in standard deviations of a run."""
    random, found = default_rng(0), []
    for _ in range(1_000):
        first, second = (random.normal(mean, 1, seeds) for mean in (0.0, shift))
        start = 0 if paired else seeds
        result = difference(dict(enumerate(first.tolist())), dict(enumerate(second.tolist(), start)))
        low, high = result.interval(0.95)
        assert (result.p <= 0.05) == (not low <= 0 <= high), "a verdict and its interval agree"
        found.append(result.p <= 0.05)
    return sum(found) / len(found)


def test_verdict_about_a_difference() -> None:
    found = difference(FIRST, SECOND)
    low, high = (100 * end for end in found.interval(0.95))
    interval = f"B minus A: +0.23 points, 95 %: {low:+.2f} to {high:+.2f}"
    assert found.describe("A", "B") == f"B is better than A on these images ({interval})"
    assert (
        difference(SECOND, FIRST).describe("B", "A").startswith("B is better than A on these images (A minus B: -0.23")
    )
    assert ", 98.3 %: " in found.describe("A", "B", 0.05 / 3)


def test_verdict_without_a_difference_says_how_many_seeds_would_show_one() -> None:
    first, second = {0: 0.990, 1: 0.991, 2: 0.992}, {0: 0.991, 1: 0.990, 2: 0.9925}
    found = difference(first, second)
    assert found.describe("A", "B") == (
        "A and B cannot be told apart with 3 and 3 seeds (B minus A: +0.02 points, 95 %: -0.24 to +0.28); "
        f"about {seeds_needed(found.sd, 0.001, 1)} would show a difference of 0.10"
    )
    scattered = difference({0: 0.5, 1: 0.9, 2: 0.1}, {0: 0.9, 1: 0.1, 2: 0.5003})
    assert "more than 1,000 would show a difference of 0.10" in scattered.describe("A", "B")
    close = difference({seed: 0.99 + seed % 3 * 1e-5 for seed in range(9)}, dict.fromkeys(range(9), 0.99001))
    assert close.describe("A", "B").endswith("a difference of 0.10 would probably have been seen")
    seen = difference({0: 0.9900, 1: 0.9908}, {seed: 0.9920 + seed % 4 * 0.001 for seed in range(8)})
    assert seen.describe("A", "B", level=0.001).endswith(f"would show a difference of {100 * seen.mean:.2f}")


@pytest.mark.parametrize("images", [123, 1_000, 3_000, 5_000])
def test_equal_differences_are_no_evidence(images: int) -> None:
    """The differences of two seeds may be the same number of images by chance; accuracies have six decimals."""
    for correct in range(images - 60, images - 30):
        first, second = ({seed: round((correct + extra + seed) / images, 6) for seed in range(2)} for extra in (0, 1))
        found = difference(first, second)
        assert found.p == 1
        assert found.describe("A", "B") == (
            f"A and B cannot be told apart with 2 and 2 seeds: the difference is {100 / images:+.2f} points for each"
        )


def test_verdicts_about_single_runs() -> None:
    assert McNemar(12, 15).describe("A", "B") == (
        "A and B cannot be told apart by one run each (only A is right on 12 images, only B on 15; McNemar's p = 0.7)"
    )
    assert McNemar(1_040, 9).describe("A", "B").startswith("this run of A is better than this run of B (only A is ")
    assert McNemar(9, 40).describe("A", "B").startswith("this run of B is better than this run of A (only A is ")
