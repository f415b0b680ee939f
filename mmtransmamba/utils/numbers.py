"""Bounded numbers on command lines, importable without heavy dependencies."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from decimal import Decimal, InvalidOperation


def whole(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """A type for ``argparse``: an integer within inclusive bounds."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f'"{text}" must be a whole number{_bounds(least, most)}'
            ) from None
        return _bounded(value, least, most)

    return number


def real(
    least: float | None = None, most: float | None = None, above: float | None = None
) -> Callable[[str], float]:
    """A type for ``argparse``: a finite number within bounds.

    Args:
        least, most: Inclusive bounds.
        above: An exclusive lower bound.
    """

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'"{text}" is not a number') from None
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f'{text} is not finite')
        if above is not None and value <= above:
            raise argparse.ArgumentTypeError(f'{text} must be above {above:g}')
        return _bounded(value, least, most)

    return number


def count(text: str) -> int:
    """A type for ``argparse``: a count such as ``500K``, ``5M`` or ``1.5B``."""
    units = {'K': 10**3, 'M': 10**6, 'B': 10**9}
    unit = units.get(text[-1:].upper(), 1)
    try:
        # Exact, as 4.1 * 10**6 is not in floats.
        value = Decimal(text if unit == 1 else text[:-1]) * unit
    except InvalidOperation:
        value = Decimal('nan')
    if not (value.is_finite() and value >= 1 and value == int(value)):
        raise argparse.ArgumentTypeError(
            f'"{text}" must be a whole number, 1 at least, possibly with K, M or B'
        )
    return int(value)


def _bounded(value: float, least: float | None, most: float | None) -> float:
    if (least is not None and value < least) or (most is not None and value > most):
        kind = 'a whole number' if isinstance(value, int) else 'a number'
        raise argparse.ArgumentTypeError(
            f'"{value}" must be {kind}{_bounds(least, most)}'
        )
    return value


def _bounds(least: float | None, most: float | None) -> str:
    low = '' if least is None else f', {least} at least'
    return low + ('' if most is None else f', {most} at most')


positive = whole(1)
"""How many: 1 at least."""

natural = whole(0)
"""How many, or none."""

seed_number = whole(0, 2**32 - 1)
"""The range that every random number generator accepts, including numpy's."""
