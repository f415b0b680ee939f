"""Names that resemble one that is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(
    name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6
) -> str:
    """The end of an error message about an unknown name.

    Args:
        name: The unknown name.
        known: Names that are accepted.
        most: Maximum number of names to suggest.
        cutoff: How near they must be; 1 is the same name.

    Returns:
        ``'; did you mean "a" or "b"?'``, or ``''`` if none is near.
    """
    near = get_close_matches(name, list(known), most, cutoff)
    named = ' or '.join(f'"{other}"' for other in near)
    return f'; did you mean {named}?' if near else ''
