"""Texts at which generation stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

_known: WeakKeyDictionary[Any, dict] = WeakKeyDictionary()


def stop_criterion(tokenizer: Any, stops: Sequence[str]) -> Any:
    """What ends a row as soon as its text has one of these in it.

    transformers builds this anew for each call of ``generate`` with ``stop_strings``:
    its cache goes by the order of the vocabulary, which a fast tokenizer gives in
    another one each time. With 128,000 tokens that takes seconds, so here it is kept
    with the tokenizer.

    Args:
        tokenizer: A transformers tokenizer.
        stops: The texts.

    Returns:
        A ``StoppingCriteria`` of transformers.
    """
    from transformers import StopStringCriteria

    known = _known.setdefault(tokenizer, {})
    key = len(tokenizer), tuple(stops)
    if key not in known:
        known[key] = StopStringCriteria(tokenizer, list(stops))
    return known[key]
