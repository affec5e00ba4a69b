"""Heads compared over seeds: intervals, tests and effect sizes. Accuracies, differences and margins are fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import poch

from ketfit.errors import ConfigError, InputError, MissingExtraError
from ketfit.integers import as_integer

try:
    from statsmodels.stats.multitest import multipletests
except ImportError as error:
    raise MissingExtraError("Comparing the heads of a study", "'ketfit[study]'") from error

Floats = NDArray[np.float64]
Method = Literal["t", "bootstrap"]

RESAMPLES = 9_999
ROUNDING = 1e-12  # relative to the values: differences of accuracies that are equal on paper are not in binary
SEEDS_TO_MIX_DF = 5


@dataclass(frozen=True)
class Summary:
    """The values of one cell over its seeds.

    `spread` is the sample standard deviation, `low` and `high` bound the mean at `level`. They are None for one value;
    the bounds also where all values are equal, and so tell nothing of their error.
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
    """Two trained heads on the same `n` sentences: who alone is right how often.

    `difference` is the first head's accuracy minus the second's. `p_value` is that of no difference for these two
    trained heads on new sentences; it says nothing about other seeds, and is not to be pooled over them.
    """

    n: int
    only_first: int
    only_second: int
    difference: float
    p_value: float


@dataclass(frozen=True)
class Difference:
    """A mean difference, first minus second, with what a t test and an interval need.

    `low` and `high` bound the true difference at `level`; `p_value` is two-sided, for no difference. Without any
    spread between seeds nothing tells the error: bounds and statistic are None, and the p-value is that of n signs
    that agree, 2^(1-n), or 1 if the difference is zero.
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
    """A difference with seeds and test sentences both random.

    `seed_error` and `sentence_error` are the parts of the standard error, their squares add up to its square: more
    seeds make the first smaller, and only more sentences the second. `n_sentences` counts those of any seed.
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
    at 2 `level` - 1 that TOST looks at, None without spread (see `Difference`).
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
    """Mean, spread and interval of one cell over its seeds, for new seeds on the same sentences.

    On normal values the t interval holds its level at any n. The bootstrap (BCa, 9,999 resamples) needs no normal
    values, but many: at 95 % it covers 84 % for n = 5, 91 % for 10 and 93 % for 20. Prefer t below some 20 seeds.

    Args:
        values: Shape (n,), finite.
        method: ``"t"``, or ``"bootstrap"``: bias-corrected and accelerated (Efron 1987).
        level: Between 0 and 1.
        seed: Of the resamples.

    Raises:
        InputError, ConfigError: no values, one that is not finite; an unknown method, a level outside (0, 1), a seed
            that is negative or not an integer.
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
    """McNemar's exact test: the discordant sentences are a fair coin if the two trained heads are equally good.

    Args:
        first_correct, second_correct: Bool, shape (n,): whether each head is right, in one order of sentences.

    Raises:
        InputError: not bool, no sentences, or lengths that differ.
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
    """Paired t test over seeds of the mean difference, first minus second: for new seeds on the same sentences.

    With `test_train_ratio` the variance of the mean is (1/n + ratio) s^2 (Nadeau and Bengio 2003), for training sets
    drawn again and again from few data. It supposes that the results of two seeds correlate by
    n_test / (n_train + n_test): 0.95 for 435 training and 9,101 test sentences, while the training sets share 4.5 %.
    That makes the interval of 5 seeds ten times as wide, far too wide; `crossed_test` measures what it supposes.

    Args:
        first, second: Shape (n,), n >= 2: one value for each seed, in one order of seeds.
        test_train_ratio: n_test / n_train, for Nadeau and Bengio's correction.
        level: Of the interval.

    Raises:
        InputError, ConfigError: lengths that differ, fewer than two seeds, a value that is not finite; a bad setting.
    """
    one, two = finite_array(first, "first", 2), finite_array(second, "second", 2)
    check_between(level, "level")
    if len(one) != len(two):
        raise InputError(f"first has {len(one)} values and second {len(two)}; give one of each for every seed")
    ratio = 0.0 if test_train_ratio is None else check_between(test_train_ratio, "test_train_ratio", math.inf)
    gaps, n = one - two, len(one)
    spread = _spread(gaps, np.concatenate([one, two]))
    # Without spread, a difference that is rounding is none.
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
    level: float = 0.95,
) -> CrossedTest:
    """The difference of two heads, first minus second, for new seeds and new sentences: the one to headline.

    Seeds and sentences are crossed random effects (Owen 2007): d_js = mean + seed_j + sentence_s + rest_js. The
    estimate is the mean over seeds of each seed's mean, as in `paired_test`. Its variance is exactly

        E[s^2] / J + mean over pairs of seeds of Cov(mean_j, mean_k)

    with s^2 the variance of the J seed means: the first part holds seeds and rest, so the rest counts once; the second
    is what all seeds share, their common sentences. It is estimated from products of residuals of two seeds at one
    sentence, whatever the overlap of the test sets, and taken as 0 if it comes out below. With equal test sets this
    is the two-way analysis of variance, (MS_seed + MS_sentence - MS_rest) / (J n).

    The degrees of freedom are the harmonic mean of the two parts', weighted by their shares, and J - 1 below five
    seeds. Satterthwaite's formula squares the shares and rejects too often at few seeds: up to 5.9 % at 5, 13 % at 2.

    Args:
        first_correct, second_correct: For each seed, whether each head is right on its test sentences; bool, (n_j,).
        sentences: For each seed, the positions of its test sentences in the data set; whole numbers, (n_j,).
        level: Of the interval.

    Raises:
        InputError: fewer than two seeds, numbers of seeds or sentences that differ, or a sentence twice in one seed.
    """
    check_between(level, "level")
    first = _by_seed(first_correct, sentences, "first_correct")
    second = _by_seed(second_correct, sentences, "second_correct")
    return _crossed([one - two for one, two in zip(first, second, strict=True)], sentences, level)


def summarize_crossed(
    correct: Sequence[NDArray[np.bool_]], sentences: Sequence[NDArray[np.integer[Any]]], *, level: float = 0.95
) -> Summary:
    """`summarize` for new seeds and new sentences: arguments, errors and the interval's making as in `crossed_test`."""
    check_between(level, "level")
    values = _by_seed(correct, sentences, "correct")
    found = _crossed(values, sentences, level)
    return replace(summarize([value.mean() for value in values], level=level), low=found.low, high=found.high)


def _crossed(values: Sequence[Floats], sentences: Sequence[NDArray[np.integer[Any]]], level: float) -> CrossedTest:
    n, n_seeds = np.array([len(part) for part in values]), len(values)
    pool, column = np.unique(np.concatenate(sentences), return_inverse=True)
    row = np.repeat(np.arange(n_seeds), n)
    means = np.array([part.mean() for part in values])
    residuals, present = np.zeros((2, n_seeds, len(pool)))
    residuals[row, column] = (np.concatenate(values) - means[row]) / n[row]
    present[row, column] = 1

    common = present @ present.T
    # Residuals about a seed's mean are a little smaller than errors: this is the share that is left of a covariance.
    share = 1 - 1 / n[:, None] - 1 / n + common / np.outer(n, n)
    covariance = np.divide(residuals @ residuals.T, share, out=np.zeros_like(common), where=common > 0)
    pairs = n_seeds * (n_seeds - 1)
    by_sentence = max(0.0, float(covariance.sum() - covariance.trace()) / pairs)
    by_seed = _spread(means, np.ones(1)) ** 2 / n_seeds

    df = float(n_seeds - 1)
    if n_seeds >= SEEDS_TO_MIX_DF and by_sentence > 0:
        terms = (residuals.sum(axis=0) ** 2 - (residuals**2).sum(axis=0)) / pairs
        variance = max(float((terms**2).sum() - terms.sum() ** 2 / len(pool)), 2 * by_sentence**2 / (len(pool) - 1))
        df_sentence = max(df, 2 * by_sentence**2 / variance)
        df = (by_seed + by_sentence) / (by_seed / df + by_sentence / df_sentence)
    mean, error, sizes = float(means.mean()), math.sqrt(by_seed + by_sentence), (n_seeds, len(pool))
    test = t_test(mean, error, df, level)
    return CrossedTest(mean, error, df, level, *test, *sizes, math.sqrt(by_seed), math.sqrt(by_sentence))


def equivalence_test(test: Difference, margin: float, *, level: float = 0.95) -> Equivalence:
    """TOST: is the difference smaller than a margin stated beforehand, and is the first head no worse than by it?

    Args:
        test: Of `paired_test` or `crossed_test`, whose error and degrees of freedom are used; larger is better.
        margin: The largest difference that does not matter, a fraction above 0.
        level: One minus the error rate of each one-sided test.

    Raises:
        ConfigError: a margin not above 0, or a level outside (0.5, 1).
    """
    check_between(margin, "margin", math.inf)
    if check_between(level, "level") <= 0.5:
        raise ConfigError(f"level {level} is not above 0.5; one-sided tests at 0.05 have the level 0.95")
    worse, better = (_one_sided(inside, test) for inside in (margin + test.difference, margin - test.difference))
    low, high, *_ = t_test(test.difference, test.standard_error, test.df, 2 * level - 1)
    worst, alpha = max(worse, better), 1 - level
    return Equivalence(margin, test.difference, level, low, high, worse, better, worst, worse < alpha, worst < alpha)


def _one_sided(inside: float, test: Difference) -> float:
    if test.standard_error == 0:  # n signs that agree, as in t_test
        return 0.5 ** (test.df + 1) if inside > 0 else 1.0
    return float(stats.t.sf(inside / test.standard_error, test.df))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values of a family, in its order: below 0.05 where the family's error rate of 5 % allows.

    Raises:
        InputError: a p-value outside [0, 1]. A family of none is ().
    """
    array = finite_array(p_values, "p_values", least=0)
    if ((array < 0) | (array > 1)).any():
        raise InputError(f"p-values lie between 0 and 1, got {array.min():g} to {array.max():g}")
    return tuple(multipletests(array, method="holm")[1].tolist()) if len(array) else ()


class TTest(NamedTuple):
    """Bounds, statistic and two-sided p-value of one t test."""

    low: float | None
    high: float | None
    statistic: float | None
    p_value: float


def t_test(difference: float, error: float, df: float, level: float) -> TTest:
    """The t test of a difference against 0 from its standard error; without one, see `Difference`."""
    if error == 0:
        return TTest(None, None, None, 1.0 if difference == 0 else 0.5**df)
    half, statistic = float(stats.t.ppf((1 + level) / 2, df)) * error, difference / error
    return TTest(difference - half, difference + half, statistic, 2 * float(stats.t.sf(abs(statistic), df)))


def _spread(values: Floats, scale: Floats) -> float:
    spread = float(values.std(ddof=1))
    return 0.0 if spread <= ROUNDING * np.abs(scale).max() else spread


def finite_array(values: ArrayLike, name: str, least: int = 1) -> Floats:
    """`values` as floats, shape (n,) with n >= `least`; InputError otherwise."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers: {error}") from error
    if array.ndim != 1 or len(array) < least:
        raise InputError(f"{name} has the shape {array.shape}; give a list of at least {least}, one for each run")
    if not np.isfinite(array).all():
        raise InputError(f"{name}[{int(np.argmin(np.isfinite(array)))}] is not finite; leave failed runs out")
    return array


def check_between(value: float, name: str, top: float = 1) -> float:
    """`value` if it lies in (0, `top`), neither end included; ConfigError otherwise."""
    if not 0 < value < top:
        raise ConfigError(f"{name} is {value}; it must lie above 0 and below {top:g}")
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
        if not np.issubdtype(where.dtype, np.integer) or len(np.unique(where)) < len(where):
            raise InputError(f"sentences[{seed}] must be whole numbers, each once: positions in the data set")
        found.append(array.astype(np.float64))
    return found
