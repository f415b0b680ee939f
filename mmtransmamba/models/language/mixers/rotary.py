"""The decoder's rotary embedding, for mixers that rotate q and k themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


def depends_on_length(config: Any) -> bool:
    """Whether the frequencies are others for texts beyond a length."""
    return config.rope_parameters.get('rope_type') in ('dynamic', 'longrope')


def frequencies(
    config: Any, device: torch.device, length: int | None = None
) -> tuple[Tensor, float]:
    """Frequencies of a decoder's rotary embedding, and the factor of cos and sin.

    Args:
        config: Config of the decoder.
        device: Of the frequencies.
        length: Tokens of the longest text in the batch; read if the frequencies
            depend on it.
    """
    rope = config.rope_parameters
    kind = rope.get('rope_type', 'default')
    if kind != 'default':
        return ROPE_INIT_FUNCTIONS[kind](config, device, length)
    heads = config.num_attention_heads
    size = getattr(config, 'head_dim', None) or config.hidden_size // heads
    size = int(size * rope.get('partial_rotary_factor', 1.0))
    steps = torch.arange(0, size, 2, dtype=torch.float32, device=device)
    return rope['rope_theta'] ** (-steps / size), 1.0


def rotary_tables(
    config: Any, positions: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines as a decoder's rotary embedding has them.

    Args:
        config: Config of the decoder.
        positions: ``[B, L]``; the highest one tells how long the text is.
        dtype: Type of the result.

    Returns:
        Two tensors ``[B, L, R]``, both halves of the R rotated channels alike.
    """
    length = int(positions.max()) + 1 if depends_on_length(config) else None
    rates, scale = frequencies(config, positions.device, length)
    angles = positions[..., None].float() * rates
    angles = torch.cat((angles, angles), dim=-1)
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first R channels of each head.

    Args:
        x: ``[B, L, H, K]``.
        cos, sin: ``[B, L, R]``, see :func:`rotary_tables`.
    """
    size = cos.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    first, second = turned.chunk(2, dim=-1)
    other = torch.cat((-second, first), dim=-1)
    turned = turned * cos[:, :, None] + other * sin[:, :, None]
    return torch.cat((turned.to(x.dtype), rest), dim=-1)
