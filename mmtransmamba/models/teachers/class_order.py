"""Matching the classes of a teacher with those of a data set by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


class ClassOrderError(ValueError):
    """A teacher's classes are in another order than the data set's."""


def order_of_classes(
    teacher: Sequence[str], dataset: Sequence[str]
) -> list[int] | None:
    """The teacher's index of each class of a data set.

    Names are compared without regard to case, spaces, hyphens and underscores. If a
    name has several words for a class, such as ``'tench, Tinca tinca'``, one word is
    enough if no other class has it.

    Args:
        teacher: The teacher's names.
        dataset: The data set's names, as many or fewer.

    Returns:
        The indices, all different; None if a class is not found in exactly one place.
    """
    whole = _index([_plain(name)] for name in teacher)
    parts = _index(map(_parts, teacher))
    order = []
    for name in dataset:
        places = whole.get(_plain(name), set())
        if not places:
            found = [parts.get(part, set()) for part in _parts(name)]
            places = set().union(*(p for p in found if len(p) == 1))
        order.append(places)
    if any(len(places) != 1 for places in order):
        # Twins, such as ImageNet's two cranes, are accepted only at their own index.
        order = [{i} if len(p) > 1 and i in p else p for i, p in enumerate(order)]
    numbers = [next(iter(p)) for p in order if len(p) == 1]
    complete = len(numbers) == len(order) and len(set(numbers)) == len(numbers)
    return numbers if complete else None


def _plain(name: str) -> str:
    return re.sub(r'[\s_\-]+', ' ', name).strip().casefold()


def _parts(name: str) -> list[str]:
    return [_plain(part) for part in name.split(',')]


def _index(names: Iterable[Iterable[str]]) -> dict[str, set[int]]:
    """The indices of the classes that each word denotes."""
    places: dict[str, set[int]] = {}
    for i, words in enumerate(names):
        for word in words:
            places.setdefault(word, set()).add(i)
    return places
