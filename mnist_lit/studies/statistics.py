"""Statistics of runs over several seeds: intervals, differences between recipes, and how many seeds would show one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from operator import sub
from statistics import fmean, stdev, variance

__all__ = ["Difference", "McNemar", "difference", "holm_levels", "mean_interval", "seeds_needed"]

LEVEL = 0.05
"""Probability that a verdict is wrong where there is no difference."""
POWER = 0.8
"""Probability with which `seeds_needed` show a difference."""
MAX_SEEDS = 1_000
RELEVANT = 0.001
"""The smallest difference of accuracies for which a verdict tells how many seeds would show it."""
MIN_SPREAD = 2e-6
"""The smallest standard deviation that is not one of rounding: recorded accuracies have six decimals."""


def mean_interval(accuracies: Sequence[float], confidence: float = 1 - LEVEL) -> tuple[float, float] | None:
    """Return the confidence interval of a mean accuracy, 0 to 1, by Student's t; None for one value, or equal ones.

    >>> low, high = mean_interval([0.98, 0.985, 0.99])
    >>> print(f"{low:.3f} {high:.3f}")
    0.973 0.997
    """
    from scipy.stats import ttest_1samp

    if len(accuracies) < 2 or stdev(accuracies) < MIN_SPREAD:
        return None
    low, high = ttest_1samp(accuracies, 0).confidence_interval(confidence)
    return max(0.0, float(low)), min(1.0, float(high))


@dataclass(frozen=True)
class Difference:
    """The difference of the mean accuracies of two recipes, second minus first."""

    mean: float
    p: float
    """The p-value of a t-test of no difference; 1 if the differences have no spread, which makes them no evidence."""
    interval: Callable[[float], tuple[float, float]]
    """Its confidence interval, given the confidence."""
    seeds: tuple[int, int]
    """The number of seeds of each recipe."""
    sd: float
    """The standard deviation of the difference of two runs."""
    freedom: float
    """Degrees of freedom for each seed but one: 1 if both have the same seeds, so that the differences by seed are
    tested; otherwise, in Welch's test, from 1 to 2."""

    def describe(self, first: str, second: str, level: float = LEVEL) -> str:
        """Return a sentence about which of two recipes is better, given their names and the level of the test."""
        confidence = f"{100 * (1 - level):.3g} %"
        low, high = self.interval(1 - level)
        interval = f"{100 * self.mean:+.2f} points, {confidence}: {100 * low:+.2f} to {100 * high:+.2f}"
        if self.p <= level:
            better, worse = (second, first) if self.mean > 0 else (first, second)
            return f"{better} is better than {worse} on these images ({second} minus {first}: {interval})"
        told = f"{first} and {second} cannot be told apart with {self.seeds[0]} and {self.seeds[1]} seeds"
        if not self.sd:  # two or three seeds may have it by chance, and an experiment has it with itself
            return f"{told}: the difference is {100 * self.mean:+.2f} points for each"
        least = max(RELEVANT, abs(self.mean))
        fewer, number = min(self.seeds), seeds_needed(self.sd, least, self.freedom, level)
        if number and number <= fewer and least > abs(self.mean):
            shown = f"a difference of {100 * least:.2f} would probably have been seen"
        else:
            needed = f"about {max(number, fewer + 1)}" if number else f"more than {MAX_SEEDS:,}"
            shown = f"{needed} would show a difference of {100 * least:.2f}"
        return f"{told} ({second} minus {first}: {interval}); {shown}"


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """Return the difference of two recipes from their accuracies by seed, at least two of each."""
    from scipy.stats import ttest_ind, ttest_rel

    ours, theirs = ([values[seed] for seed in sorted(values)] for values in (first, second))
    mean, seeds = fmean(theirs) - fmean(ours), (len(ours), len(theirs))
    if first.keys() == second.keys():
        test, variances = ttest_rel, [variance(map(sub, theirs, ours))]
    else:
        test, variances = partial(ttest_ind, equal_var=False), [variance(ours), variance(theirs)]
    if (sd := sqrt(sum(variances))) < MIN_SPREAD:
        return Difference(mean, 1.0, lambda _: (mean, mean), seeds, 0.0, 1.0)
    freedom = sum(variances) ** 2 / sum(value**2 for value in variances)
    result = test(theirs, ours)
    return Difference(mean, float(result.pvalue), result.confidence_interval, seeds, sd, freedom)


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test of no difference between two classifiers of the same images."""

    only_first: int
    """Number of images that only the first classifies correctly."""
    only_second: int
    """Number of images that only the second classifies correctly."""

    @property
    def p(self) -> float:
        """The p-value."""
        from scipy.stats import binomtest

        total = self.only_first + self.only_second
        return float(binomtest(self.only_first, total).pvalue) if total else 1.0

    def describe(self, first: str, second: str, level: float = LEVEL) -> str:
        """Return a sentence about which of two runs is better, given their names and the level of the test."""
        images = f"only {first} is right on {self.only_first:,} images, only {second} on {self.only_second:,}"
        counts = f"{images}; McNemar's p = {self.p:.2g}"
        if self.p > level:
            return f"{first} and {second} cannot be told apart by one run each ({counts})"
        better, worse = (second, first) if self.only_second > self.only_first else (first, second)
        return f"this run of {better} is better than this run of {worse} ({counts}); more seeds tell if the recipe is"


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """Return the level of each of several tests, such that the probability of any wrong verdict is at most `LEVEL`.

    A hypothesis is rejected if its p-value is at most its level (Holm 1979): the smallest p-value has the level divided
    by the number of tests, the next by one less, …; those after the first that is not rejected have that one's level.

    >>> holm_levels([0.04, 0.01])
    [0.05, 0.025]
    """
    ranked = sorted(p_values)
    levels = [LEVEL / (len(ranked) - rank) for rank in range(len(ranked))]
    last = next((rank for rank, p in enumerate(ranked) if p > levels[rank]), len(ranked) - 1)
    return [levels[min(ranked.index(p), last)] for p in p_values]


def seeds_needed(sd: float, least: float, freedom: float, level: float = LEVEL) -> int | None:
    """Return how many seeds of each recipe show a difference with probability `POWER`, or None for more than 1,000.

    Args:
        sd: standard deviation of the difference of two runs.
        least: the difference to show. The probability of a verdict in the wrong direction is neglected.
        freedom: degrees of freedom for each seed but one, see `Difference`.
        level: level of the test.
    """
    from scipy.stats import nct, t

    for seeds in range(2, MAX_SEEDS + 1):
        degrees = freedom * (seeds - 1)
        if nct.sf(t.isf(level / 2, degrees), degrees, least / sd * sqrt(seeds)) >= POWER:
            return seeds
    return None
