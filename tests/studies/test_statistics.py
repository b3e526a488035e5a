"""Verdicts about recipes: as statsmodels computes them, wrong as rarely and right as often as they say."""

from math import sqrt

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from mnist_lit.studies.statistics import (
    LEVEL,
    McNemar,
    difference,
    holm_levels,
    images_sd,
    mean_interval,
    seeds_needed,
    selection_bonus,
)

FIRST, SECOND = [0.9882, 0.9890, 0.9880], [0.9905, 0.9903, 0.9912]


def test_interval_of_a_mean() -> None:
    values = default_rng(0).normal(0.99, 0.001, 5).tolist()
    low, high = DescrStatsW(values).tconfint_mean()
    found = mean_interval(values, 10_000)
    assert found
    assert found.seeds == pytest.approx((high - low) / 2)
    assert found.images == pytest.approx(1.96 * sqrt(found.centre * (1 - found.centre) / 10_000))
    assert found.half == pytest.approx(sqrt(found.seeds**2 + found.images**2))
    assert mean_interval([0.5, 0.5], 100) is None
    assert mean_interval([0.5], 100) is None
    assert (wide := mean_interval([0.1, 0.9], 100))
    assert wide.ends == (0, 1), "no accuracy is outside"


def test_recipes_are_compared_by_welch() -> None:
    found = difference(FIRST, [*SECOND, 0.99])
    means = CompareMeans(DescrStatsW([*SECOND, 0.99]), DescrStatsW(FIRST))
    assert found.seeds == (3, 4)
    assert found.p == pytest.approx(means.ttest_ind(usevar="unequal")[1])
    low, high = means.tconfint_diff(usevar="unequal")
    assert (found.mean - found.half_width(0.05), found.mean + found.half_width(0.05)) == pytest.approx((low, high))


@pytest.mark.parametrize("counts", [(0, 0), (12, 15), (3, 20), (40, 9)])
def test_mcnemar(counts: tuple[int, int]) -> None:
    expected = mcnemar([[900, counts[0]], [counts[1], 50]], exact=True).pvalue if any(counts) else 1
    assert McNemar(*counts).p == pytest.approx(expected)


def test_holm_rejects_what_statsmodels_rejects() -> None:
    for seed, size in enumerate((1, 3, 10, 10, 10)):
        p_values = default_rng(seed).uniform(0, 1, size) ** 3
        rejected = [bool(p <= level) for p, level in zip(p_values, holm_levels(p_values.tolist()), strict=True)]
        assert rejected == multipletests(p_values, LEVEL, method="holm")[0].tolist()


def test_seeds_needed_for_a_difference() -> None:
    """With a standard deviation that is known (of many runs), as statsmodels computes them."""
    known, test = 1e9, TTestIndPower()
    for level in (0.05, 0.05 / 3):
        fewest = 1_000
        for ratio in (0.2, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 10.0, 50.0):
            found = seeds_needed(0.002, known, ratio * 0.002, level)
            assert found is not None
            assert found <= fewest, "a larger difference needs no more"
            fewest = found
            if ratio < 4:  # statsmodels' power is NaN for some larger ones
                assert test.power(ratio * sqrt(2), found, level) >= 0.799
                assert found == 2 or test.power(ratio * sqrt(2), found - 1, level) < 0.801
    assert seeds_needed(0.002, known, 0.00002) is None
    estimated = [seeds_needed(0.002, freedom, 0.002) or 0 for freedom in (2, 4, 8, 100)]
    assert estimated == sorted(estimated, reverse=True), "the less is known, the more seeds"


@pytest.mark.parametrize("pilot", [3, 5])
@pytest.mark.parametrize("sd", [0.5, 1.0])
def test_the_verdict_holds_when_its_advice_is_followed(pilot: int, sd: float) -> None:
    """A pilot, then the seeds that it asks for, compared alone: wrong in at most 5 %, right in at least 80 %.

    The standard deviation is known from the pilot only; the difference to show is 1.
    """
    random, runs = default_rng(10 * pilot), 1_000
    for truth in (0.0, 1.0):
        told = 0
        for _ in range(runs):
            found = difference(*(random.normal(mean, sd, pilot).tolist() for mean in (0.0, truth)))
            if found.p > LEVEL:
                seeds = seeds_needed(found.sd, found.freedom, 1.0) or 1_000
                found = difference(*(random.normal(mean, sd, seeds).tolist() for mean in (0.0, truth)))
            told += found.p <= LEVEL
        if truth:
            assert told / runs >= 0.8
        else:
            assert told / runs <= 0.05 + 2 * sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("seeds", [3, 10])
def test_the_images_part_is_what_other_images_change(seeds: int) -> None:
    """The mean accuracies of fixed networks on many sets of images vary by as much, whatever the noise of the seeds."""
    random, images = default_rng(seeds), 2_000
    found, differences = [], []
    for _ in range(200):
        easy = random.beta(20, 1, images)  # the probability that a run of the first recipe is right
        better = np.clip(easy + random.normal(0.01, 0.03, images), 0, 1)
        first, second = (torch.from_numpy(random.random((seeds, images)) < chance) for chance in (easy, better))
        found.append(images_sd(first, second))
        differences.append((better - easy).mean())  # of infinitely many seeds
    assert np.sqrt(np.square(found).mean()) == pytest.approx(np.std(differences), rel=0.2)


def test_the_best_of_equal_trials_is_flattered_as_stated() -> None:
    best = default_rng(0).binomial(5_000, 0.99, (2_000, 20)).max(axis=1).mean() / 5_000
    assert selection_bonus(20, 0.99, 5_000) == pytest.approx(best - 0.99, rel=0.05)


def test_verdict_about_a_difference() -> None:
    found = difference(FIRST, SECOND)
    interval = f"B minus A: +0.23 points, 97.5 %: ± {100 * found.half_width(0.025):.2f}"
    assert found.describe("A", "B") == f"B is better than A on these images ({interval})"
    other = difference(SECOND, FIRST).describe("B", "A")
    assert other.startswith("B is better than A on these images (A minus B: -0.23")
    assert ", 98.3 %: " in found.describe("A", "B", 0.05 / 3)


def test_verdict_without_a_difference_says_how_many_new_seeds_would_show_one() -> None:
    found = difference([0.990, 0.991, 0.992], [0.991, 0.990, 0.9925])
    needed, half = seeds_needed(found.sd, found.freedom, 0.001), 100 * found.half_width(0.025)
    assert found.describe("A", "B") == (
        f"A and B cannot be told apart with 3 and 3 seeds (B minus A: +0.02 points, 97.5 %: ± {half:.2f}); "
        f"to show 0.10 points, train {needed} new seeds of each and compare those alone"
    )
    assert f"to show 0.50 points, train {seeds_needed(found.sd, found.freedom, 0.005)} new" in found.describe(
        "A", "B", relevant=0.005
    )
    scattered = difference([0.5, 0.9, 0.1], [0.9, 0.1, 0.5003])
    assert "to show 0.10 points, train more than 1,000 new seeds" in scattered.describe("A", "B")


@pytest.mark.parametrize("images", [123, 1_000, 3_000, 5_000])
def test_equal_differences_are_no_evidence(images: int) -> None:
    """Two seeds may be right about the same number of images by chance; accuracies have six decimals."""
    for correct in range(images - 60, images - 30):
        first = [round(correct / images, 6)] * 2
        found = difference(first, [round((correct + 1) / images, 6)] * 2)
        assert found.p == 1
        assert found.describe("A", "B") == (
            "A and B cannot be told apart with 2 and 2 seeds: "
            f"the difference is {100 / images:+.2f} points in every pair of runs"
        )


def test_verdicts_about_single_runs() -> None:
    assert McNemar(12, 15).describe("A", "B") == (
        "A and B cannot be told apart by one run each (only A is right on 12 images, only B on 15; McNemar's p = 0.7)"
    )
    assert McNemar(1_040, 9).describe("A", "B").startswith("this run of A is better than this run of B (only A is ")
    assert McNemar(9, 40).describe("A", "B").startswith("this run of B is better than this run of A (only A is ")
