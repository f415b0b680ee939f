"""Keyword arguments of decoders, layers and mixers.

transformers passes unknown arguments on through all layers. An argument that nothing
reads may be a cache, a mask or positions under a new name; without these a recurrence
computes wrong results without an error. So unknown arguments are refused here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

HARMLESS = frozenset(
    {
        # Outputs to return.
        'output_attentions',
        'output_hidden_states',
        'output_router_logits',
        'return_dict',
        # For the loss.
        'ignore_index',
        'num_items_in_batch',
        'shift_labels',
        # Kinds of tokens, which no decoder here distinguishes.
        'mm_token_type_ids',
        'token_type_ids',
        # Positions of packed sequences: checked by the decoder, read by FlashAttention.
        'cu_seq_lens_k',
        'cu_seq_lens_q',
        'max_length_k',
        'max_length_q',
    }
)
"""Names that are passed on to where they are read, or to nobody."""


def known_arguments(*more: str) -> Callable[[Callable], Callable]:
    """Make a method refuse unknown keyword arguments that it would pass on.

    Args:
        *more: Names to accept besides the method's own parameters and
            :data:`HARMLESS`.

    Raises:
        TypeError: Raised by the method for any other argument.
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
