"""Generation without the settings of a model's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import GenerationConfig

_TOKENS = ('bos_token_id', 'eos_token_id', 'pad_token_id', 'decoder_start_token_id')
_COST = ('use_cache', 'cache_implementation')


@contextmanager
def plain_settings(model: nn.Module, *kept: str) -> Iterator[None]:
    """Without the generation settings of a model's folder that change its words.

    Special tokens and the kind of cache stay.

    transformers fills in an argument None from the folder's settings, so arguments of
    ``generate`` cannot undo them.

    Args:
        model: A transformers model.
        *kept: Names of settings that stay.
    """
    own = getattr(model, 'generation_config', None)
    if own is None:
        yield
        return
    names = (*_TOKENS, *_COST, *kept)
    settings = {name: getattr(own, name, None) for name in names}
    model.generation_config = GenerationConfig(**settings)
    try:
        yield
    finally:
        model.generation_config = own
