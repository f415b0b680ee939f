"""Where a backend in plain torch runs: everywhere, and on everything."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def unavailable() -> str | None:
    """Plain torch always runs."""
    return None


def refuses(tensors: Mapping[str, Tensor | None]) -> str | None:
    """Every tensor that passed the checks of the interface is accepted."""
    return None
