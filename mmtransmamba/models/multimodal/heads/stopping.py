"""Stop strings of generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

_known: WeakKeyDictionary[Any, dict] = WeakKeyDictionary()


def stop_criterion(tokenizer: Any, stops: Sequence[str]) -> Any:
    """Stopping criterion that ends a row when its text contains a stop string.

    transformers rebuilds this for each call of ``generate`` with ``stop_strings``: its
    cache depends on the order of the vocabulary, which changes with every call of a
    fast tokenizer. With 128,000 tokens that takes seconds, so here the criterion is
    stored with the tokenizer.

    Args:
        tokenizer: A transformers tokenizer.
        stops: The stop strings.

    Returns:
        A ``StoppingCriteria`` of transformers.
    """
    from transformers import StopStringCriteria

    known = _known.setdefault(tokenizer, {})
    key = len(tokenizer), tuple(stops)
    if key not in known:
        known[key] = StopStringCriteria(tokenizer, list(stops))
    return known[key]
