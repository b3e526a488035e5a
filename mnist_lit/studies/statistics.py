"""Statistics of runs over several seeds: intervals, differences between recipes, and how many seeds would show one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

__all__ = [
    "Difference",
    "describe_difference",
    "describe_mcnemar",
    "difference",
    "holm_levels",
    "mcnemar",
    "mean_interval",
    "seeds_needed",
]

LEVEL = 0.05
"""Probability that a verdict is wrong where there is no difference."""
POWER = 0.8
"""Probability with which `seeds_needed` show a difference."""
MAX_SEEDS = 1_000
RELEVANT = 0.001
"""The smallest difference of accuracies for which a verdict tells how many seeds would show it."""
MIN_SPREAD = 2e-6
"""Below it, a standard deviation is one of rounding: recorded accuracies have six decimals."""


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
    """Their number, of each recipe."""
    sd: float
    """The standard deviation of the difference of two runs."""
    freedom: float
    """Degrees of freedom for each seed but one: 1 if both have the same seeds, so that the differences by seed are
    tested; otherwise, of Welch's test, from 1 to 2."""


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """Return the difference of two recipes from their accuracies by seed, at least two of each."""
    from scipy.stats import ttest_ind, ttest_rel

    paired = first.keys() == second.keys()
    ours, theirs = ([values[seed] for seed in sorted(values)] for values in (first, second))
    mean, seeds = fmean(theirs) - fmean(ours), (len(ours), len(theirs))
    if paired:
        sd, freedom = stdev(b - a for a, b in zip(ours, theirs, strict=True)), 1.0
    else:
        variances = stdev(ours) ** 2, stdev(theirs) ** 2
        sd = sqrt(sum(variances))
        freedom = sd**4 / sum(variance**2 for variance in variances) if sd else 1.0
    if sd < MIN_SPREAD:
        return Difference(mean, 1.0, lambda _: (mean, mean), seeds, 0.0, freedom)
    result = ttest_rel(theirs, ours) if paired else ttest_ind(theirs, ours, equal_var=False)

    def interval(confidence: float) -> tuple[float, float]:
        low, high = result.confidence_interval(confidence)
        return float(low), float(high)

    return Difference(mean, float(result.pvalue), interval, seeds, sd, freedom)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p-value of no difference between two classifiers of the same images, by McNemar's exact test.

    Args:
        only_first: number of images that only the first classifies correctly.
        only_second: number of those that only the second does.
    """
    from scipy.stats import binomtest

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


def seeds_needed(sd: float, least: float, freedom: float, *, level: float = LEVEL, power: float = POWER) -> int | None:
    """Return how many seeds of each recipe show a difference with a probability, or None for more than 1,000.

    Args:
        sd: standard deviation of the difference of two runs.
        least: the difference to show.
        freedom: degrees of freedom for each seed but one, see `Difference`.
        level: level of the test.
        power: the probability. That of a verdict in the wrong direction is neglected.
    """
    from scipy.stats import nct, t

    for seeds in range(2, MAX_SEEDS + 1):
        degrees = freedom * (seeds - 1)
        if nct.sf(t.isf(level / 2, degrees), degrees, least / sd * sqrt(seeds)) >= power:
            return seeds
    return None


def describe_difference(first: str, second: str, found: Difference, level: float = LEVEL) -> str:
    """Return a sentence about which of two recipes is better.

    Args:
        first: its name.
        second: its name.
        found: their difference.
        level: level of the test, see `holm_levels`.
    """
    confidence = f"{100 * (1 - level):.3g} %"
    low, high = found.interval(1 - level)
    if found.p <= level:
        better, worse = (second, first) if found.mean > 0 else (first, second)
        nearer, farther = sorted((abs(low), abs(high)))  # both have the sign of the mean
        return (
            f"{better} is better than {worse} by {100 * abs(found.mean):.2f} points on these images "
            f"({confidence}: {100 * nearer:.2f} to {100 * farther:.2f})"
        )
    fewer, more = sorted(found.seeds)
    seeds = f"{fewer} seeds each" if fewer == more else f"{fewer} and {more} seeds"
    told = f"{first} and {second} cannot be told apart with {seeds}"
    if not found.sd:  # of two or three seeds, by chance; or of one experiment and itself
        return f"{told}: the difference is {100 * found.mean:+.2f} points for each"
    between = (
        f"{second} minus {first}: {100 * found.mean:+.2f} points, {confidence}: {100 * low:+.2f} to {100 * high:+.2f}"
    )
    least = max(RELEVANT, abs(found.mean))
    number = seeds_needed(found.sd, least, found.freedom, level=level)
    if number and number <= fewer and least > abs(found.mean):
        shown = f"a difference of {100 * least:.2f} would probably have been seen"
    else:
        needed = f"about {max(number, fewer + 1)}" if number else "more than 1,000"
        shown = f"{needed} would show a difference of {100 * least:.2f}"
    return f"{told} ({between}); {shown}"


def describe_mcnemar(first: str, second: str, only_first: int, only_second: int, level: float = LEVEL) -> str:
    """Return a sentence about which of two networks, one run each, is better.

    Args:
        first: its name.
        second: its name.
        only_first: number of images that only the first classifies correctly.
        only_second: number of those that only the second does.
        level: level of the test, see `holm_levels`.
    """
    p = mcnemar(only_first, only_second)
    counts = f"only {first} is right on {only_first:,} images, only {second} on {only_second:,}; McNemar's p = {p:.2g}"
    if p > level:
        return f"{first} and {second} cannot be told apart by one run each ({counts})"
    better, worse = (second, first) if only_second > only_first else (first, second)
    return f"this run of {better} is better than this run of {worse} ({counts}); whether the recipe is, more seeds tell"
