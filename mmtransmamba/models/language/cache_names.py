"""The keyword under which transformers passes a cache.

Until 5.23, decoders, layers, attention and outputs call it ``past_key_values``; since
5.24, ``cache``, with decorators for the old name whose removal is announced for 5.40.
The hybrids accept both names on every release and pass a cache on under the release's
own name, so they need none of the decorators. The rest of the package does not depend
on the name.
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
    """Keyword argument that passes a cache to transformers' modules."""
    return {CACHE: cache}


def returned_cache(outputs: Any) -> Cache | None:
    """The cache in a decoder's or language model's outputs."""
    return getattr(outputs, CACHE)


def either_name(method: Callable) -> Callable:
    """Make a method accept its cache parameter by either name.

    Its signature, which ``generate`` reads, has the release's name.

    Raises:
        TypeError: Raised by the method if both names are given with different caches.
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
