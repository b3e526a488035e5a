"""Statistics of runs over several seeds: intervals, differences between recipes, and how many seeds would show one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

__all__ = ["Difference", "difference", "holm_levels", "mcnemar", "mean_interval", "seeds_needed"]

LEVEL = 0.05
"""Probability that a verdict is wrong where there is no difference."""
POWER = 0.8
"""Probability with which `seeds_needed` show a difference."""
MAX_SEEDS = 1_000
MIN_SPREAD = 1e-9
"""Below it, a standard deviation is one of rounding."""


def mean_interval(values: Sequence[float], confidence: float = 1 - LEVEL) -> tuple[float, float]:
    """Return the confidence interval of a mean by Student's t, for at least two values.

    >>> low, high = mean_interval([0.98, 0.99, 1.0])
    >>> print(f"{low:.3f} {high:.3f}")
    0.965 1.015
    """
    from scipy.stats import ttest_1samp

    if stdev(values) < MIN_SPREAD:
        return values[0], values[0]
    low, high = ttest_1samp(values, 0).confidence_interval(confidence)
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """The difference of the mean accuracies of two recipes, second minus first."""

    mean: float
    p: float
    """Of no difference, by a t-test; 1 if the differences have no spread, which makes them no evidence."""
    interval: Callable[[float], tuple[float, float]]
    """Its confidence interval, given the confidence."""
    seeds: int
    """Of each recipe; of unequal numbers, the smaller."""
    sd: float
    """Of the difference of two runs."""
    paired: bool
    """Whether both have the same seeds, so that the differences by seed are tested; otherwise Welch's test is used."""


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """Return the difference of two recipes from their accuracies by seed, at least two of each."""
    from scipy.stats import ttest_ind, ttest_rel

    paired = first.keys() == second.keys()
    ours, theirs = ([values[seed] for seed in sorted(values)] for values in (first, second))
    mean, seeds = fmean(theirs) - fmean(ours), min(len(ours), len(theirs))
    if paired:
        sd = stdev(b - a for a, b in zip(ours, theirs, strict=True))
    else:
        sd = sqrt(stdev(ours) ** 2 + stdev(theirs) ** 2)
    if sd < MIN_SPREAD:
        return Difference(mean, 1.0, lambda _: (mean, mean), seeds, 0.0, paired)
    result = ttest_rel(theirs, ours) if paired else ttest_ind(theirs, ours, equal_var=False)

    def interval(confidence: float) -> tuple[float, float]:
        low, high = result.confidence_interval(confidence)
        return float(low), float(high)

    return Difference(mean, float(result.pvalue), interval, seeds, sd, paired)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the p-value that two classifiers err equally often on the same images (McNemar's exact test).

    Args:
        first: whether the first classified each image correctly, (N,).
        second: whether the second did, (N,).
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total = only_first + only_second
    return float(binomtest(only_first, total).pvalue) if total else 1.0


def holm_levels(p_values: Sequence[float], level: float = LEVEL) -> list[float]:
    """Return the level of each of several tests, such that the probability of any wrong verdict is at most `level`.

    A hypothesis is rejected if its p-value is at most its level (Holm 1979): the smallest p-value has the level divided
    by the number of tests, the next by one less, …; those after the first that is not rejected have that one's level.

    >>> holm_levels([0.04, 0.01])
    [0.05, 0.025]
    """
    levels = [0.0] * len(p_values)
    current, rejecting = 0.0, True
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if rejecting:
            current = level / (len(p_values) - rank)
            rejecting = p_values[i] <= current
        levels[i] = current
    return levels


def seeds_needed(sd: float, least: float, *, paired: bool, level: float = LEVEL, power: float = POWER) -> int | None:
    """Return how many seeds of each recipe show a difference with a probability, or None for more than 1,000.

    Args:
        sd: of the difference of two runs.
        least: the difference to show.
        paired: whether both have the same seeds.
        level: of the test.
        power: the probability.
    """
    from scipy.stats import nct, t

    for seeds in range(2, MAX_SEEDS + 1):
        freedom = seeds - 1 if paired else 2 * seeds - 2
        critical, shift = t.isf(level / 2, freedom), least / sd * sqrt(seeds)
        if nct.sf(critical, freedom, shift) + nct.cdf(-critical, freedom, shift) >= power:
            return seeds
    return None
