"""Limits on the length and values of generated text."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def room_for_answer(model: nn.Module, prompt: int, wanted: int | None) -> int | None:
    """Number of tokens that a model may generate after a prompt.

    Args:
        model: A transformers model. With Mamba layers only, there is no limit.
        prompt: Number of prompt tokens, including images.
        wanted: Requested number of tokens, None if not specified.

    Returns:
        The requested number, limited by the rest of the model's context.

    Raises:
        ValueError: The context has no room left.
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
    """A logits processor that refuses to choose a token if there is a NaN.

    Raises:
        ValueError: Logits are NaN.
    """
    if bool(scores.isnan().any()):
        raise ValueError(
            'The model computes NaN where the next token should be: it cannot answer.'
        )
    return scores
