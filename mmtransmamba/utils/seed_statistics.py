"""Figures of several seeds, and how tables write them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

# Two-sided 95 % quantiles of Student's t by degrees of freedom; 1.96 beyond.
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
    freedom = len(values) - 1
    quantile = T_95[freedom - 1] if freedom <= len(T_95) else 1.96
    width = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), width


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
