"""Keyword arguments that decoders, layers and mixers are handed.

transformers passes whatever it does not know on and on. A name that nobody reads may
be a cache, a mask or positions under a new name, and without them a recurrence goes
wrong without an error. So what is not known here is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

HARMLESS = frozenset(
    {
        # What to return.
        'output_attentions',
        'output_hidden_states',
        'output_router_logits',
        'return_dict',
        # For the loss.
        'ignore_index',
        'num_items_in_batch',
        'shift_labels',
        # Kinds of tokens, which no decoder here tells apart.
        'mm_token_type_ids',
        'token_type_ids',
        # Where packed sequences lie: checked by the decoder, read by FlashAttention.
        'cu_seq_lens_k',
        'cu_seq_lens_q',
        'max_length_k',
        'max_length_q',
    }
)
"""Names that are passed on to where they are read, or to nobody."""


def known_arguments(*more: str) -> Callable[[Callable], Callable]:
    """Have a method refuse keyword arguments that it would pass on unread.

    Args:
        *more: Names that are harmless besides its own parameters and
            :data:`HARMLESS`.

    Raises:
        TypeError: From the method: it got another argument.
    """

    def decorate(method: Callable) -> Callable:
        known = HARMLESS.union(more, inspect.signature(method).parameters)

        @wraps(method)
        def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
            for name in kwargs:
                if name not in known:
                    raise TypeError(
                        f'{type(self).__name__} got an argument {name!r} that it does '
                        'not know. If it belongs to a newer transformers, install a '
                        'release that docs/installation.md names; otherwise leave it '
                        'out.'
                    )
            return method(self, *args, **kwargs)

        return checked

    return decorate
