"""Statistics of runs over several seeds: intervals, differences between recipes, and how many seeds would show one."""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import NormalDist, fmean, stdev, variance

from torch import Tensor

__all__ = [
    "LEVEL",
    "Difference",
    "Interval",
    "McNemar",
    "difference",
    "holm_levels",
    "images_sd",
    "mean_interval",
    "seeds_needed",
    "selection_bonus",
]

LEVEL = 0.025
"""Probability that a verdict is wrong where there is no difference. A pilot and the new seeds that it asks for give two
verdicts: in at most 5 % of all cases, one of them is wrong."""
POWER = 0.8
"""Least probability with which `seeds_needed` show a difference."""
SD_CONFIDENCE = 0.8
"""Confidence of the upper limit of a standard deviation, with which `seeds_needed` plans: that of a few seeds is often
too small (Browne 1995, doi:10.1002/sim.4780141709)."""
MAX_SEEDS = 1_000
RELEVANT = 0.001
"""By default, the difference of accuracies that a comparison is to show."""
MIN_SPREAD = 2e-6
"""The smallest standard deviation that is not one of rounding: recorded accuracies have six decimals."""


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval of a mean, or of a difference of means, for other seeds and other images."""

    centre: float
    seeds: float
    """Half the width that other seeds alone would give it."""
    images: float
    """Half the width that other images alone would give it."""

    @property
    def half(self) -> float:
        """Half the width: the variances of the two parts add up."""
        return hypot(self.seeds, self.images)

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends, 0 to 1, of the interval of an accuracy."""
        return max(0.0, self.centre - self.half), min(1.0, self.centre + self.half)

    @property
    def parts(self) -> str:
        """The two parts, in percentage points."""
        return f"seeds ± {100 * self.seeds:.2f}, images ± {100 * self.images:.2f}"


def mean_interval(accuracies: Sequence[float], images: int) -> Interval | None:
    """Return the interval of the mean accuracy of several seeds, measured on a number of images.

    The part for other seeds is Student's t interval, the part for other images is binomial. The latter contains some of
    the variation over seeds, so that the interval is too wide rather than too narrow. It is None for one seed, or equal
    accuracies.

    >>> interval = mean_interval([0.98, 0.985, 0.99], 10_000)
    >>> print(f"{interval.centre:.3f} ± {interval.half:.4f}: {interval.parts}")
    0.985 ± 0.0126: seeds ± 1.24, images ± 0.24
    """
    from scipy.stats import t

    number = len(accuracies)
    if number < 2 or (sd := stdev(accuracies)) < MIN_SPREAD:
        return None
    mean = fmean(accuracies)
    return Interval(mean, float(t.isf(0.025, number - 1)) * sd / sqrt(number), 1.96 * sqrt(mean * (1 - mean) / images))


def images_sd(first: Tensor, second: Tensor) -> float:
    """Return the standard deviation that other images of the same kind would give to a difference of accuracies.

    The differences by image have the noise of the seeds in them, which is subtracted: otherwise it would count twice.

    Args:
        first: whether each run of a recipe is right about each image, (R, N).
        second: whether each run of the other recipe is right about each image, (R, N).
    """
    runs = [correct.double() for correct in (first, second)]
    between = float((runs[1].mean(dim=0) - runs[0].mean(dim=0)).var())
    noise = sum(float(correct.var(dim=0).mean()) / len(correct) for correct in runs)
    return sqrt(max(0.0, between - noise) / first.shape[1])


@dataclass(frozen=True)
class Difference:
    """The difference of the mean accuracies of two recipes, second minus first, by Welch's t-test over their seeds."""

    mean: float
    p: float
    """The p-value of a test of no difference; 1 if the runs have no spread, which makes them no evidence."""
    seeds: tuple[int, int]
    """The number of seeds of each recipe."""
    sd: float
    """The standard deviation of the difference of two runs."""
    error: float
    """The standard error of the difference."""
    freedom: float
    """The degrees of freedom of the test."""

    def describe(self, first: str, second: str, level: float = LEVEL, relevant: float = RELEVANT) -> str:
        """Return a sentence about which of two recipes is better, given their names and the level of the test.

        If they cannot be told apart, it says how many new seeds would show a `relevant` difference.
        """
        half = self.half_width(level)
        interval = f"{100 * self.mean:+.2f} points, {100 * (1 - level):.3g} %: ± {100 * half:.2f}"
        if self.p <= level:
            better, worse = (second, first) if self.mean > 0 else (first, second)
            return f"{better} is better than {worse} on these images ({second} minus {first}: {interval})"
        told = f"{first} and {second} cannot be told apart with {self.seeds[0]} and {self.seeds[1]} seeds"
        if not self.sd:  # two or three seeds may have it by chance, and an experiment has it with itself
            return f"{told}: the difference is {100 * self.mean:+.2f} points in every pair of runs"
        number = seeds_needed(self.sd, self.freedom, relevant, level)
        needed = f"{number:,}" if number else f"more than {MAX_SEEDS:,}"
        advice = f"to show {100 * relevant:.2f} points, train {needed} new seeds of each and compare those alone"
        return f"{told} ({second} minus {first}: {interval}); {advice}"

    def half_width(self, level: float) -> float:
        """Return half the width of the confidence interval for other seeds."""
        from scipy.stats import t

        return float(t.isf(level / 2, self.freedom)) * self.error if self.sd else 0.0


def difference(first: Collection[float], second: Collection[float]) -> Difference:
    """Return the difference of two recipes from the accuracies of their runs, at least two of each."""
    from scipy.stats import ttest_ind

    mean, seeds = fmean(second) - fmean(first), (len(first), len(second))
    variances = [variance(first), variance(second)]
    if (sd := sqrt(sum(variances))) < MIN_SPREAD:
        return Difference(mean, 1.0, seeds, 0.0, 0.0, 1.0)
    error = sqrt(sum(value / number for value, number in zip(variances, seeds, strict=True)))
    result = ttest_ind([*second], [*first], equal_var=False)
    return Difference(mean, float(result.pvalue), seeds, sd, error, float(result.df))


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
    [0.025, 0.0125]
    """
    ranked = sorted(p_values)
    levels = [LEVEL / (len(ranked) - rank) for rank in range(len(ranked))]
    last = next((rank for rank, p in enumerate(ranked) if p > levels[rank]), len(ranked) - 1)
    return [levels[min(ranked.index(p), last)] for p in p_values]


def seeds_needed(sd: float, freedom: float, least: float, level: float = LEVEL) -> int | None:
    """Return how many new seeds of each recipe show a difference with probability `POWER`, None for more than 1,000.

    Args:
        sd: standard deviation of the difference of two runs, as estimated; its upper confidence limit is used.
        freedom: degrees of freedom of the estimate.
        least: the difference to show. The probability of a verdict in the wrong direction is neglected.
        level: level of the test.
    """
    from scipy.stats import chi2, nct, t

    upper = sd * sqrt(freedom / chi2.ppf(1 - SD_CONFIDENCE, freedom))

    def shows(seeds: int) -> bool:
        degrees = 2 * (seeds - 1)
        return bool(nct.sf(t.isf(level / 2, degrees), degrees, least / upper * sqrt(seeds)) >= POWER)

    seeds = 2 + bisect_left(range(2, MAX_SEEDS + 1), True, key=shows)  # the first that shows it
    return seeds if seeds <= MAX_SEEDS else None


def selection_bonus(number: int, accuracy: float, images: int) -> float:
    """Return by how much the best of several equal accuracies is above their mean, if only the images make them differ.

    It is the expected maximum of normal numbers (Blom 1958).

    >>> round(selection_bonus(20, 0.99, 5_000), 4)
    0.0026
    """
    return NormalDist().inv_cdf((number - 0.375) / (number + 0.25)) * sqrt(accuracy * (1 - accuracy) / images)
