"""Power of paired tests: seeds that a comparison needs, and the difference that it can detect."""

from __future__ import annotations

import math
from bisect import bisect_left

from scipy import stats
from scipy.optimize import brentq

from ketfit.errors import ConfigError
from ketfit.integers import as_integer
from ketfit.study.analysis.hypothesis_tests import check_between

MAX_SEEDS = 10_000


def seeds_needed(
    difference: float, spread: float, *, power: float = 0.8, level: float = 0.95, sentence_error: float = 0.0
) -> int:
    """Return the fewest seeds with which a paired test finds a true `difference` with probability `power`.

    Args:
        difference: The true mean difference, a fraction; its sign does not matter.
        spread: Standard deviation of the differences between seeds, as in `PairedTest`, above 0.
        power: Probability to find the difference, between 0 and 1.
        level: Between 0 and 1; the test is two-sided at 1 - level.
        sentence_error: `CrossedTest.sentence_error`, for the crossed test; more seeds do not reduce it.

    Raises:
        ConfigError: A setting is out of range, or more than 10,000 seeds are needed.

    >>> seeds_needed(0.5, 1.0)
    34
    """
    check_between(abs(difference), "the absolute difference", math.inf)
    check_between(level, "level")
    check_between(power, "power")

    def has_power(n: int) -> bool:
        return _power(abs(difference) / _error(n, spread, sentence_error), n, level) >= power

    if not has_power(MAX_SEEDS):
        raise ConfigError(f"{MAX_SEEDS:,} seeds do not find {difference:g} with power {power:g}; look for more")
    return 2 + bisect_left(range(2, MAX_SEEDS), True, key=has_power)


def detectable_difference(
    n: int, spread: float, *, power: float = 0.8, level: float = 0.95, sentence_error: float = 0.0
) -> float:
    """Return the smallest true difference that a paired test over `n` seeds finds with `power`; see `seeds_needed`."""
    n = as_integer(n, "n")
    if n < 2:
        raise ConfigError(f"n is {n}; a spread between seeds needs at least two")
    if check_between(power, "power") <= 1 - check_between(level, "level"):
        raise ConfigError(f"power {power:g} is not above 1 - level, which a difference of zero has already")
    upper = 2.0
    while _power(upper, n, level) < power:
        upper *= 2
    size = float(brentq(lambda size: _power(size, n, level) - power, 0, upper))
    return size * _error(n, spread, sentence_error)


def _error(n: int, spread: float, sentence_error: float) -> float:
    check_between(spread, "spread", math.inf)
    if not 0 <= sentence_error < math.inf:
        raise ConfigError(f"sentence_error is {sentence_error}; it must be 0 or a finite number above")
    return math.hypot(spread * math.sqrt(1 / n), sentence_error)


def _power(size: float, n: int, level: float) -> float:
    """Return the power of the paired test over n seeds for a difference of `size` standard errors."""
    bound = stats.t.ppf((1 + level) / 2, n - 1)
    # The far tail is below 3e-7 from 5 on, where SciPy's value of it may be NaN.
    far = float(stats.nct.cdf(-bound, n - 1, size)) if size < 5 else 0.0
    return float(stats.nct.sf(bound, n - 1, size)) + far
