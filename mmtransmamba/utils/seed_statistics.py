"""Figures of several seeds, and how tables write them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

# Two-sided 95 % quantiles of Student's t by degrees of freedom.
T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, which is 0 for a single value."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), deviation


def mean_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation; the value alone if there is one; '–' for none."""
    if not values:
        return '–'
    mean, deviation = mean_and_deviation(values)
    spread = f' ± {deviation:.{digits}f}' if len(values) > 1 else ''
    return f'{mean:.{digits}f}{spread}'


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval, of two values at least."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), _quantile(len(values) - 1) * error


def _quantile(freedom: int) -> float:
    """The table's, or beyond it the expansion by Abramowitz and Stegun, 26.7.5."""
    if freedom <= len(T_95):
        return T_95[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**n for n, term in enumerate(terms, 1))


def paired(differences: Sequence[float], digits: int = 2) -> str:
    """Mean of paired differences and the half width of its 95 % interval, marked if
    zero lies outside; a single difference alone; '–' for none."""
    if not differences:
        return '–'
    if len(differences) == 1:
        return f'{differences[0]:+.{digits}f}'
    mean, width = t_interval(differences)
    mark = '**' if abs(mean) > width else ''
    return f'{mark}{mean:+.{digits}f} ± {width:.{digits}f}{mark}'
