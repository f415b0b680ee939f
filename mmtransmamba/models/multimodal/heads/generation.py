"""Limits of what a model can write."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def room_for_answer(model: nn.Module, prompt: int, wanted: int | None) -> int | None:
    """How many tokens a model may write after a prompt.

    Args:
        model: A transformers model. If all its layers are Mamba's, it has no limit.
        prompt: Tokens of the prompt, images included.
        wanted: How many are to be written, None if nobody says.

    Returns:
        As many as wanted, and as there is room for in the model's context.

    Raises:
        ValueError: There is no room at all.
    """
    limit = _context_of(model)
    if limit is None:
        return wanted
    if prompt >= limit:
        raise ValueError(
            f'The prompt has {prompt} tokens, but the model can read '
            f'{limit} with its answer (max_position_embeddings): shorten the '
            'conversation.'
        )
    return None if wanted is None else min(wanted, limit - prompt)


def _context_of(model: nn.Module) -> int | None:
    config = getattr(model, 'config', None)
    if config is None:
        return None
    config = config.get_text_config()
    layers = getattr(config, 'mamba_layers', None)
    if layers is not None and len(layers) == config.num_hidden_layers:
        return None
    return getattr(config, 'max_position_embeddings', None)


def refuse_nan(input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
    """A logits processor that lets no token be chosen among NaN.

    Raises:
        ValueError: There are some.
    """
    if bool(scores.isnan().any()):
        raise ValueError(
            'The model computes NaN where the next token should be: it cannot answer.'
        )
    return scores
