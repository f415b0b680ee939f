"""Values of metrics, some of which are lists, such as one number per class."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any


def single_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are one number."""
    return {name: v for name, v in metrics.items() if isinstance(v, Real)}


def in_words(value: Any) -> str:
    """A value with four digits, a list with those of its entries."""
    if isinstance(value, Real):
        return f'{value:.4g}'
    if isinstance(value, list | tuple):
        return f'[{", ".join(map(in_words, value))}]'
    return str(value)
