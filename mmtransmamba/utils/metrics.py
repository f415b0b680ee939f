"""Results of evaluations as plain data."""

from __future__ import annotations

from typing import Any


def plain_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics with Python's numbers and lists for those of numpy and PyTorch."""
    return {
        name: value.tolist() if hasattr(value, 'tolist') else value
        for name, value in metrics.items()
    }
