"""The check that hooks share which act every so many iterations."""

from __future__ import annotations


def checked_interval(hook: str, interval: int) -> int:
    """The interval between two actions of a hook, in iterations.

    Args:
        hook: Name of the hook, for the error.
        interval: What its config says.

    Raises:
        ValueError: It is not a whole number of at least 1.
    """
    if type(interval) is not int or interval < 1:
        raise ValueError(
            f'{hook}: interval={interval!r} must be a whole number of at least 1.'
        )
    return interval
