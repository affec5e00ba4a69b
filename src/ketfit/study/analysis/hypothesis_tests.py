"""Intervals, tests and effect sizes over seeds. Accuracies, differences and margins are fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import poch

from ketfit.errors import ConfigError, InputError
from ketfit.integers import as_integer

Floats = NDArray[np.float64]
Method = Literal["t", "bootstrap"]

RESAMPLES = 9_999
ROUNDING = 1e-12  # relative tolerance: equal accuracies differ by rounding
SEEDS_TO_MIX_DF = 5


@dataclass(frozen=True)
class Summary:
    """Summary statistics of the values of one cell over its seeds.

    `spread` is the sample standard deviation; `low` and `high` bound the mean at `level`. They are None for one value,
    the bounds also if all values are equal.
    """

    n: int
    mean: float
    spread: float | None
    low: float | None
    high: float | None
    lowest: float
    highest: float
    level: float


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two trained heads on the same `n` sentences.

    `only_first` counts sentences that only the first head has right; `difference` is first minus second accuracy.
    `p_value` tests for no difference between these two trained heads on new sentences. It does not apply to other
    seeds and must not be pooled over seeds.
    """

    n: int
    only_first: int
    only_second: int
    difference: float
    p_value: float


@dataclass(frozen=True)
class Difference:
    """A mean difference, first minus second, with its t test and interval.

    `low` and `high` bound the true difference at `level`; `p_value` is two-sided, for no difference. Without
    spread between seeds the error is unknown: bounds and statistic are None, and the p-value is that of the sign
    test, 2^(1-n), or 1 if the difference is zero.
    """

    difference: float
    standard_error: float
    df: float
    level: float
    low: float | None
    high: float | None
    statistic: float | None
    p_value: float


@dataclass(frozen=True)
class PairedTest(Difference):
    """A paired t test over `n` seeds; `spread` is the standard deviation of the differences.

    `effect_size` is Cohen's d_z, the difference in units of `spread`, with Hedges' factor for few seeds (g_z). It is
    0 if all differences are zero, and None for two seeds and for equal differences that are not zero.
    """

    n: int
    spread: float
    effect_size: float | None
    correction: Literal["none", "nadeau-bengio"]


@dataclass(frozen=True)
class CrossedTest(Difference):
    """A difference with both seeds and test sentences as random effects.

    `seed_error` and `sentence_error` are the parts of the standard error; their squares add up to its square. More
    seeds reduce the first, only more sentences the second. `n_sentences` counts the distinct sentences of all seeds.
    """

    n_seeds: int
    n_sentences: int
    seed_error: float
    sentence_error: float


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests (TOST) of a difference, first minus second, against a margin.

    `p_no_worse` is for "the first is worse by `margin` or more", `p_no_better` for "better by `margin` or more",
    `p_value` the larger. `equivalent`: both are rejected; `no_worse`: the first is. `low` and `high` are the interval
    at 2 `level` - 1 that TOST uses, None without spread (see `Difference`).
    """

    margin: float
    difference: float
    level: float
    low: float | None
    high: float | None
    p_no_worse: float
    p_no_better: float
    p_value: float
    no_worse: bool
    equivalent: bool


def summarize(values: ArrayLike, *, method: Method = "t", level: float = 0.95, seed: int = 0) -> Summary:
    """Return mean, spread and interval of one cell over its seeds, for new seeds on the same sentences.

    The t interval is exact for normal values at any n. The bootstrap (BCa, 9,999 resamples) assumes no normality but
    needs many values: at 95 % it covers 84 % for n = 5, 91 % for 10 and 93 % for 20. Prefer t below 20 seeds.

    Args:
        values: Shape (n,), finite.
        method: ``"t"``, or ``"bootstrap"``: bias-corrected and accelerated (Efron 1987).
        level: Between 0 and 1.
        seed: Seed of the resamples.

    Raises:
        InputError: There are no values, or one is not finite.
        ConfigError: The method is unknown, `level` is not in (0, 1), or the seed is not an integer of 0 or more.

    >>> summarize([0.8, 0.9, 1.0]).mean
    0.9
    """
    array = finite_array(values, "values")
    check_between(level, "level")
    seed = as_integer(seed, "seed", minimum=0)
    if method not in ("t", "bootstrap"):
        raise ConfigError(f"method {method!r} is unknown; take 't' or 'bootstrap'")
    n, mean = len(array), float(array.mean())
    spread = _spread(array, array) if n > 1 else None
    low = high = None
    if spread and method == "t":
        low, high, *_ = t_test(mean, spread / math.sqrt(n), n - 1, level)
    elif spread:
        rng = np.random.default_rng(seed)
        found = stats.bootstrap((array,), np.mean, n_resamples=RESAMPLES, confidence_level=level, random_state=rng)
        low, high = map(float, found.confidence_interval)
    return Summary(n, mean, spread, low, high, float(array.min()), float(array.max()), level)


def mcnemar(first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_]) -> McNemar:
    """Test two trained heads by McNemar's exact test, which is binomial on the discordant sentences.

    Args:
        first_correct: Bool, shape (n,): the sentences that the first head has right.
        second_correct: The same for the second head, in the same order of sentences.

    Raises:
        InputError: The arrays are not bool, are empty, or differ in length.

    >>> mcnemar(np.array([True, True, False]), np.array([True, False, False])).p_value
    1.0
    """
    first, second = _correct(first_correct, "first_correct"), _correct(second_correct, "second_correct")
    if len(first) != len(second):
        raise InputError(f"{len(first)} and {len(second)} sentences; give both heads the same ones in one order")
    one, two = int((first & ~second).sum()), int((second & ~first).sum())
    p_value = float(stats.binomtest(one, one + two).pvalue) if one + two else 1.0
    return McNemar(len(first), one, two, (one - two) / len(first), p_value)


def paired_test(
    first: ArrayLike, second: ArrayLike, *, test_train_ratio: float | None = None, level: float = 0.95
) -> PairedTest:
    """Test the mean difference, first minus second, over paired seeds: for new seeds on the same sentences.

    With `test_train_ratio` the variance of the mean is (1/n + ratio) s^2 (Nadeau and Bengio 2003), for training sets
    drawn repeatedly from few data. It assumes that the results of two seeds correlate by n_test / (n_train + n_test):
    0.95 for 435 training and 9,101 test sentences, while the training sets share only 4.5 %. The interval of 5 seeds
    is then ten times as wide, far too wide; `crossed_test` estimates the correlation instead.

    Args:
        first: Shape (n,), n >= 2: one value for each seed.
        second: The same for the second head, in the same order of seeds.
        test_train_ratio: n_test / n_train, for Nadeau and Bengio's correction.
        level: Confidence level of the interval.

    Raises:
        InputError: The lengths differ, there are fewer than two seeds, or a value is not finite.
        ConfigError: `level` or `test_train_ratio` is out of range.
    """
    one, two = finite_array(first, "first", 2), finite_array(second, "second", 2)
    check_between(level, "level")
    if len(one) != len(two):
        raise InputError(f"first has {len(one)} values and second {len(two)}; give one of each for every seed")
    ratio = 0.0 if test_train_ratio is None else check_between(test_train_ratio, "test_train_ratio", math.inf)
    gaps, n = one - two, len(one)
    spread = _spread(gaps, np.concatenate([one, two]))
    # Without spread, treat a difference of rounding size as zero.
    difference = float(gaps.mean()) if spread or not np.allclose(one, two, rtol=ROUNDING, atol=0) else 0.0
    error = spread * math.sqrt(1 / n + ratio)
    test = t_test(difference, error, n - 1, level)
    effect = _hedges(difference, spread, n)
    return PairedTest(difference, error, n - 1, level, *test, n, spread, effect, "nadeau-bengio" if ratio else "none")


def _hedges(difference: float, spread: float, n: int) -> float | None:
    if difference == 0:
        return 0.0
    if spread == 0 or n == 2:  # d_z of two seeds has no mean to correct
        return None
    half = (n - 1) / 2
    return float(poch(half - 0.5, 0.5)) / math.sqrt(half) * difference / spread


def crossed_test(
    first_correct: Sequence[NDArray[np.bool_]],
    second_correct: Sequence[NDArray[np.bool_]],
    sentences: Sequence[NDArray[np.integer[Any]]],
    *,
    test_train_ratio: float | None = None,
    level: float = 0.95,
) -> CrossedTest:
    """Test the difference of two heads, first minus second, for new seeds and new sentences.

    Seeds and sentences are crossed random effects (Owen 2007): d_js = mean + seed_j + sentence_s + rest_js. The
    estimate is the mean over seeds of each seed's mean, as in `paired_test`. Its variance is exactly

        E[s^2] / J + mean over pairs of seeds of Cov(mean_j, mean_k)

    with s^2 the variance of the J seed means: the first part contains seeds and rest, so the rest counts once; the
    second comes from the sentences that seeds share. It is estimated from products of residuals of two seeds at one
    sentence, for any overlap of the test sets, and set to 0 if it is negative. With equal test sets this is the
    two-way analysis of variance, (MS_seed + MS_sentence - MS_rest) / (J n).

    The degrees of freedom are the harmonic mean of the two parts', weighted by their shares, and J - 1 below five
    seeds. Satterthwaite's formula squares the shares and rejects too often at few seeds: up to 5.9 % at 5, 13 % at 2.

    Repeated hold-outs of one data set share most of their training sentences too, which no residual shows. With
    `test_train_ratio` the second part is at least ratio s^2, the covariance that Nadeau and Bengio assume (see
    `paired_test`), with J - 1 degrees of freedom if that is the larger one.

    Args:
        first_correct: For each seed j, the test sentences that the first head has right; bool, shape (n_j,).
        second_correct: The same for the second head.
        sentences: For each seed j, the positions of its test sentences in the data set; integers, shape (n_j,).
        test_train_ratio: n_test / n_train of repeated hold-outs; None if seeds share few training sentences.
        level: Confidence level of the interval.

    Raises:
        InputError: There are fewer than two seeds, numbers of seeds or sentences differ, or a seed repeats a sentence.
    """
    check_between(level, "level")
    first = _by_seed(first_correct, sentences, "first_correct")
    second = _by_seed(second_correct, sentences, "second_correct")
    ratio = 0.0 if test_train_ratio is None else check_between(test_train_ratio, "test_train_ratio", math.inf)
    values = [one - two for one, two in zip(first, second, strict=True)]
    return crossed_mean(values, sentences, ratio=ratio, level=level)


def summarize_crossed(
    correct: Sequence[NDArray[np.bool_]],
    sentences: Sequence[NDArray[np.integer[Any]]],
    *,
    test_train_ratio: float | None = None,
    level: float = 0.95,
) -> Summary:
    """Return `summarize` with the interval of `crossed_test`, for new seeds and new sentences."""
    check_between(level, "level")
    ratio = 0.0 if test_train_ratio is None else check_between(test_train_ratio, "test_train_ratio", math.inf)
    values = _by_seed(correct, sentences, "correct")
    found = crossed_mean(values, sentences, ratio=ratio, level=level)
    return replace(summarize([value.mean() for value in values], level=level), low=found.low, high=found.high)


def crossed_mean(
    values: Sequence[Floats],
    sentences: Sequence[NDArray[np.integer[Any]]],
    *,
    weights: ArrayLike | None = None,
    ratio: float = 0.0,
    level: float = 0.95,
) -> CrossedTest:
    """Test the mean over seeds of each seed's mean value, for new seeds and new sentences; see `crossed_test`.

    With weights a_j the part of the seeds is the sum of a_j^2 (mean_j - mean)^2 / (1 - a_j), with Satterthwaite's
    degrees of freedom: the bias-reduced cluster-robust variance CR2 (Bell and McCaffrey 2002) of a regression with
    fixed seed effects, in which a_j is the seed's share of the information. Equal weights make it s^2 / J with J - 1.

    Args:
        values: For each seed j, one value per test sentence, shape (n_j,).
        sentences: For each seed j, the positions of its test sentences in the data set, shape (n_j,).
        weights: Shape (J,), above 0, with sum 1; None is 1 / J each.
        ratio: n_test / n_train of repeated hold-outs; 0 if seeds share few training sentences.
        level: Confidence level of the interval.
    """
    n, n_seeds = np.array([len(part) for part in values]), len(values)
    pool, column = np.unique(np.concatenate(sentences), return_inverse=True)
    row = np.repeat(np.arange(n_seeds), n)
    means = np.array([part.mean() for part in values])
    residuals, present = np.zeros((2, n_seeds, len(pool)))
    residuals[row, column] = (np.concatenate(values) - means[row]) / n[row]
    present[row, column] = 1

    common = present @ present.T
    # Residuals about a seed's mean are smaller than errors: `share` corrects the bias of their covariance.
    share = 1 - 1 / n[:, None] - 1 / n + common / np.outer(n, n)
    covariance = np.divide(residuals @ residuals.T, share, out=np.zeros_like(common), where=common > 0)
    a = np.full(n_seeds, 1 / n_seeds) if weights is None else np.asarray(weights, np.float64)
    mean, by_seed, df = _over_seeds(means, a)
    pairs = np.outer(a, a) / (1 - a @ a)  # weights of the pairs of seeds, whose sum is 1
    np.fill_diagonal(pairs, 0)
    by_sentence = max(0.0, float((pairs * covariance).sum()))

    by_training = ratio * by_seed / float(a @ a)
    if by_training > by_sentence:
        by_sentence = by_training
    elif n_seeds >= SEEDS_TO_MIX_DF and by_sentence > 0:
        terms = (residuals * (pairs @ residuals)).sum(axis=0)
        variance = max(float((terms**2).sum() - terms.sum() ** 2 / len(pool)), 2 * by_sentence**2 / (len(pool) - 1))
        df_sentence = max(df, 2 * by_sentence**2 / variance)
        df = (by_seed + by_sentence) / (by_seed / df + by_sentence / df_sentence)
    error, sizes = math.sqrt(by_seed + by_sentence), (n_seeds, len(pool))
    test = t_test(mean, error, df, level)
    return CrossedTest(mean, error, df, level, *test, *sizes, math.sqrt(by_seed), math.sqrt(by_sentence))


def _over_seeds(means: Floats, a: Floats) -> tuple[float, float, float]:
    """Return the weighted mean of the seeds' means, its variance from their spread, and its degrees of freedom."""
    mean = float(a @ means)
    if abs(mean) <= ROUNDING:
        mean = 0.0
    if np.ptp(a) <= ROUNDING:
        return mean, _spread(means, np.ones(1)) ** 2 / len(a), float(len(a) - 1)
    deviations = means - mean
    variance = float((a**2 * deviations**2 / (1 - a)).sum()) if np.abs(deviations).max() > ROUNDING else 0.0
    shares = np.outer(a**2 / (1 - a), a**2 / (1 - a))
    return mean, variance, 1 / float(a @ a + shares.sum() - shares.trace())


def equivalence_test(test: Difference, margin: float, *, level: float = 0.95) -> Equivalence:
    """Test by TOST if the difference is smaller than a margin set beforehand.

    Args:
        test: Result of `paired_test` or `crossed_test` on values of which larger is better.
        margin: The largest irrelevant difference, a fraction above 0.
        level: One minus the error rate of each one-sided test.

    Raises:
        ConfigError: `margin` is not above 0, or `level` is not in (0.5, 1).
    """
    check_between(margin, "margin", math.inf)
    if check_between(level, "level") <= 0.5:
        raise ConfigError(f"level {level} is not above 0.5; one-sided tests at 0.05 have the level 0.95")
    worse, better = (_one_sided(inside, test) for inside in (margin + test.difference, margin - test.difference))
    low, high, *_ = t_test(test.difference, test.standard_error, test.df, 2 * level - 1)
    worst, alpha = max(worse, better), 1 - level
    return Equivalence(margin, test.difference, level, low, high, worse, better, worst, worse < alpha, worst < alpha)


def _one_sided(inside: float, test: Difference) -> float:
    if test.standard_error == 0:  # sign test, as in t_test
        return 0.5 ** (test.df + 1) if inside > 0 else 1.0
    return float(stats.t.sf(inside / test.standard_error, test.df))


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Return the p-values of a family adjusted by Holm (1979), in the given order; None, without a test, stays None.

    The k-th smallest of m p-values is multiplied by m + 1 - k; the products are then made non-decreasing and at most 1.

    Raises:
        InputError: A p-value is outside [0, 1].

    >>> holm([0.01, None, 0.04])
    (0.02, None, 0.04)
    """
    tested = {index: p for index, p in enumerate(p_values) if p is not None}
    array = finite_array(list(tested.values()), "p_values", min_length=0)
    if ((array < 0) | (array > 1)).any():
        raise InputError(f"p-values lie between 0 and 1, got {array.min():g} to {array.max():g}")
    order, adjusted = array.argsort(), np.empty_like(array)
    adjusted[order] = np.maximum.accumulate(array[order] * np.arange(len(array), 0, -1)).clip(max=1)
    by_index = dict(zip(tested, adjusted.tolist(), strict=True))
    return tuple(by_index.get(index) for index in range(len(p_values)))


class TTest(NamedTuple):
    """Bounds, statistic and two-sided p-value of one t test."""

    low: float | None
    high: float | None
    statistic: float | None
    p_value: float


def t_test(difference: float, error: float, df: float, level: float) -> TTest:
    """Test a difference against 0 by its standard error; see `Difference` for an error of zero."""
    if error == 0:
        return TTest(None, None, None, 1.0 if difference == 0 else 0.5**df)
    half, statistic = float(stats.t.ppf((1 + level) / 2, df)) * error, difference / error
    return TTest(difference - half, difference + half, statistic, 2 * float(stats.t.sf(abs(statistic), df)))


def _spread(values: Floats, scale: Floats) -> float:
    spread = float(values.std(ddof=1))
    return 0.0 if spread <= ROUNDING * np.abs(scale).max() else spread


def finite_array(values: ArrayLike, name: str, min_length: int = 1) -> Floats:
    """Return `values` as floats of shape (n,) with n >= `min_length`; raise InputError otherwise."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers: {error}") from error
    if array.ndim != 1 or len(array) < min_length:
        raise InputError(f"{name} has the shape {array.shape}; give a list of at least {min_length}, one for each run")
    if not np.isfinite(array).all():
        raise InputError(f"{name}[{int(np.argmin(np.isfinite(array)))}] is not finite; leave failed runs out")
    return array


def check_between(value: float, name: str, upper: float = 1) -> float:
    """Return `value` if it is in the open interval (0, `upper`); raise ConfigError otherwise."""
    if not 0 < value < upper:
        raise ConfigError(f"{name} is {value}; it must lie above 0 and below {upper:g}")
    return value


def _correct(values: NDArray[np.bool_], name: str) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.dtype != np.bool_ or array.ndim != 1 or len(array) == 0:
        raise InputError(f"{name} is {array.dtype} of shape {array.shape}; give one bool (right or not) per sentence")
    return array


def _by_seed(
    correct: Sequence[NDArray[np.bool_]], sentences: Sequence[NDArray[np.integer[Any]]], name: str
) -> list[Floats]:
    if len(correct) != len(sentences) or len(correct) < 2:
        raise InputError(
            f"{name} has {len(correct)} seeds, sentences {len(sentences)}; give both for two or more seeds"
        )
    found = []
    for seed, (values, positions) in enumerate(zip(correct, sentences, strict=True)):
        array, where = _correct(values, f"{name}[{seed}]"), np.asarray(positions)
        if array.shape != where.shape or len(array) < 2:
            raise InputError(
                f"{name}[{seed}] has {len(array)} sentences, sentences[{seed}] {where.size}; give 2 or more"
            )
        if not np.issubdtype(where.dtype, np.integer) or _repeats(where):
            raise InputError(f"sentences[{seed}] must be whole numbers, each once: positions in the data set")
        found.append(array.astype(np.float64))
    return found


def _repeats(positions: NDArray[np.integer[Any]]) -> bool:
    ordered = np.sort(positions)
    return bool((ordered[1:] == ordered[:-1]).any())
