"""The name under which transformers passes a cache.

Until 5.23 decoders, layers, attention and outputs call it ``past_key_values``; since
5.24 ``cache``, with decorators for the old name that are announced to go at 5.40. The
hybrids take either name on every release, hand a cache on under the release's own, and
so need none of the decorators. Nothing else in the package knows of the renaming.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from transformers import LlamaModel
from transformers.cache_utils import Cache

NAMES = ('cache', 'past_key_values')

CACHE = next(
    name for name in NAMES if name in inspect.signature(LlamaModel.forward).parameters
)
"""The name in the installed release of transformers."""


def as_argument(cache: Cache | None) -> dict[str, Cache | None]:
    """Keyword argument that hands a cache to what belongs to transformers."""
    return {CACHE: cache}


def returned_cache(outputs: Any) -> Cache | None:
    """The cache in a decoder's or language model's outputs."""
    return getattr(outputs, CACHE)


def either_name(method: Callable) -> Callable:
    """Let a method with a parameter for a cache take it by either name.

    Its signature, which ``generate`` reads, has the release's name.

    Raises:
        TypeError: From the method: both names are given, and not for one cache.
    """
    signature = inspect.signature(method)
    (own,) = (name for name in NAMES if name in signature.parameters)
    (other,) = (name for name in NAMES if name != own)

    @wraps(method)
    def renamed(*args: Any, **kwargs: Any) -> Any:
        if other in kwargs:
            cache = kwargs.pop(other)
            if kwargs.get(own) is None:
                kwargs[own] = cache
            elif cache is not None and cache is not kwargs[own]:
                raise TypeError(
                    'Got two caches, as cache and as past_key_values; they are two '
                    'names of the same argument.'
                )
        return method(*args, **kwargs)

    renamed.__signature__ = signature.replace(
        parameters=[
            parameter.replace(name=CACHE) if name == own else parameter
            for name, parameter in signature.parameters.items()
        ]
    )
    return renamed
