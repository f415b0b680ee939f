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
        self._queries: nn.Module | None = None

    def attach(self, attention: nn.Module) -> None:
        """Change an attention module of transformers."""
        attention.register_forward_pre_hook(self._before, with_kwargs=True)
        if self.scaling is not None:
            # Behind a norm of the queries, which would remove the factor.
            found = (n for n in _QUERIES if getattr(attention, n, None) is not None)
            self._name = next(found, 'q_proj')
            self._place = _QUERIES.get(self._name, (..., None))
            self._hook_to(getattr(attention, self._name))

    def _hook_to(self, queries: nn.Module) -> None:
        """Scale what this module returns, and no longer what another one does."""
        if self._queries is not None:
            hooks = self._queries._forward_hooks
            for key in [k for k, hook in hooks.items() if hook == self._scale]:
                del hooks[key]
        queries.register_forward_hook(self._scale)
        self._queries = queries

    def _before(
        self, module: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        if self.scaling is not None:
            queries = getattr(module, self._name)
            if queries is not self._queries:
                # Adapters and quantisation put another module in its place, and add to
                # what the old one returns.
                self._hook_to(queries)
            positions = kwargs['position_ids'].float() + self.scaling
            self._factor = positions.log() / math.log(self.scaling)
        if not self.rope:
            cos, sin = kwargs['position_embeddings']
            unchanged = torch.ones_like(cos), torch.zeros_like(sin)
            kwargs = dict(kwargs, position_embeddings=unchanged)
        return args, kwargs

    def _scale(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return output * self._factor[self._place].to(output.dtype)
