"""Attention layers without rotary embedding, and with logits that grow with position.

In hybrids for long contexts, the mixers know the order of the tokens and the attention
layers need not (HyPE, arXiv:2601.22156).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

_QUERIES = {'q_norm': (..., None, None), 'q_layernorm': (slice(None), None, ..., None)}
"""Norms of queries, and how a factor ``[B, L]`` fits what they return.

Qwen3's returns ``[B, L, H, K]``, Phi's ``[B, H, L, K]``. Without a norm, the factor is
for the projection, which returns ``[B, L, H * K]``.
"""


class AttentionPositions:
    r"""Hooks of a Transformer's attention; its class and parameters stay as they are.

    Args:
        rope: Whether q and k are rotated.
        scaling: If not None, the base :math:`a` of the factor
            :math:`s_t = \log_a(t + a)` of the logits of the query at position t,
            which is 1 at the first token.
    """

    def __init__(self, rope: bool, scaling: float | None) -> None:
        self.rope = rope
        self.scaling = scaling
        self._factor: Tensor | None = None

    def attach(self, attention: nn.Module) -> None:
        """Change an attention module of transformers."""
        attention.register_forward_pre_hook(self._before, with_kwargs=True)
        if self.scaling is not None:
            # Behind a norm of the queries, which would remove the factor.
            found = (n for n in _QUERIES if getattr(attention, n, None) is not None)
            name = next(found, 'q_proj')
            self._place = _QUERIES.get(name, (..., None))
            getattr(attention, name).register_forward_hook(self._scale)

    def _before(
        self, module: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        if self.scaling is not None:
            positions = kwargs['position_ids'].float() + self.scaling
            self._factor = positions.log() / math.log(self.scaling)
        if not self.rope:
            cos, sin = kwargs['position_embeddings']
            unchanged = torch.ones_like(cos), torch.zeros_like(sin)
            kwargs = dict(kwargs, position_embeddings=unchanged)
        return args, kwargs

    def _scale(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return output * self._factor[self._place].to(output.dtype)
