"""Intervals of means."""

import pytest
from scipy import stats

from mmtransmamba.utils.seed_statistics import paired, t_interval


@pytest.mark.parametrize('count', [2, 3, 5, 21, 22, 25, 30, 41, 121, 1001])
def test_intervals_are_students(count):
    values = [((7 * i) % 11) / 3 for i in range(count)]
    mean, width = t_interval(values)
    low, high = stats.t.interval(
        0.95, count - 1, loc=mean, scale=stats.sem(values, ddof=1)
    )
    # The table has four digits.
    assert (mean - width, mean + width) == pytest.approx((low, high), rel=2e-3)
    assert width == pytest.approx((high - low) / 2, rel=2e-4)


def test_an_interval_that_reaches_zero_is_not_marked():
    values = [1.0] * 11 + [-0.55] * 11
    mean, width = t_interval(values)
    assert not abs(mean) > width
    assert paired(values) == f'{mean:+.2f} ± {width:.2f}'
    assert paired([v + 0.5 for v in values]).startswith('**+0.7')
