"""Names of a distiller's terms in the arguments of hooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def term_names(hook: str, terms: Any) -> tuple[str, ...]:
    """The names in an argument ``terms``.

    Raises:
        ValueError: It is a single string, names nothing, or is no list of names; the
            message begins with ``hook``.
    """
    names = () if isinstance(terms, str) or not isinstance(terms, Iterable) else terms
    names = tuple(names)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f'{hook}: terms={terms!r} must be a list of names, one at least.'
        )
    return names


def check_known(hook: str, terms: Iterable[str], known: Iterable[str]) -> None:
    """Check that a model has terms.

    Raises:
        ValueError: It lacks some; the message begins with ``hook``.
    """
    terms, known = list(terms), sorted(known)
    if unknown := sorted(set(terms) - set(known)):
        raise ValueError(f'{hook}: {terms} names {unknown}, the model has {known}.')
