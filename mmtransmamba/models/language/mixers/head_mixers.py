"""Softmax attention in some heads of a layer, a linear mixer in the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache

from mmtransmamba.models.language.mixers.base import DecoderMixer
from mmtransmamba.models.language.mixers.gated_delta_net import GatedDeltaNetMixer
from mmtransmamba.models.language.mixers.inits import without_blocks
from mmtransmamba.models.language.mixers.kda import KDAMixer
from mmtransmamba.models.language.mixers.mamba2 import Mamba2Mixer
from mmtransmamba.models.language.mixers.rotary import rotate
from mmtransmamba.registry import DECODER_MIXERS


class HeadBranch:
    r"""Keeps the attention of some key-value heads; the mixer behind it has the others.

    :math:`y = W_O [y_1, \dots, y_H]`, where :math:`y_h` is the head of the replaced
    attention if its key-value head is kept, and otherwise the head of the linear mixer,
    after its norm and gate. q, k, v and the output projection are those of all heads in
    the attention's order. Everything else of the linear mixer exists only for its own
    heads. Without kept heads, the layer is the linear mixer.

    The cache of a layer has the states of the linear heads, and for every token keys
    and values of the kept ones, see
    :class:`~mmtransmamba.models.language.cache.KeyValueStates`.

    ``attention_rope`` and ``attention_logit_scaling`` of the config apply to the kept
    heads as to attention layers. Their attention is
    :func:`~torch.nn.functional.scaled_dot_product_attention`, whatever
    ``attn_implementation`` is.

    Args:
        config, layer_idx: See :class:`DecoderMixer`.
        attention_kv_heads: Numbers of the key-value heads, from 0, whose query heads
            stay attention; not all of them.
        **fields: Fields of the linear mixer.

    Attributes:
        kept: The kept key-value heads, sorted.

    Raises:
        ValueError: There is no such head, or all are kept.
    """

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        *,
        attention_kv_heads: Sequence[int] = (),
        **fields: Any,
    ) -> None:
        self.kept = tuple(sorted(attention_kv_heads))  # read by take_heads
        super().__init__(config, layer_idx, **fields)
        self.rope_in_mixer = self.rope
        self.rope = self.rope or bool(self.kept)
        for name in self.attention if self.kept else ():
            if isinstance(getattr(self, name), nn.Linear):
                setattr(self, name, self._for_all_heads(name))

    def take_heads(self, config: Any) -> None:
        """Take the numbers of the linear heads, see :meth:`DecoderMixer.take_heads`."""
        super().take_heads(config)
        groups = range(self.num_groups)
        if not set(self.kept) <= set(groups) or len(self.kept) == len(groups):
            raise ValueError(
                f'attention_kv_heads={list(self.kept)} of layer {self.layer_idx} must '
                f'name some, but not all, of the key-value heads 0 to {groups[-1]}. A '
                'layer that keeps all of them is not converted.'
            )
        self.repeats = self.num_heads // self.num_groups
        self.all_groups = self.num_groups
        self.num_groups -= len(self.kept)
        self.num_heads = self.num_groups * self.repeats
        self.d_inner = self.num_heads * self.head_dim
        self.d_groups = self.num_groups * self.head_dim

    def _for_all_heads(self, name: str) -> nn.Linear:
        """A projection of all heads in place of that of the linear ones."""
        own = getattr(self, name)
        sizes = {'in_features': own.in_features, 'out_features': own.out_features}
        side = 'in_features' if name == 'out_proj' else 'out_features'
        sizes[side] = sizes[side] // self.num_groups * self.all_groups
        weight = own.weight
        return nn.Linear(
            **sizes,
            bias=own.bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )

    @classmethod
    def keeps_keys(cls, fields: Mapping[str, Any]) -> bool:
        """See :meth:`AttentionMixer.keeps_keys`."""
        return bool(fields['attention_kv_heads'])

    @classmethod
    def whole(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`AttentionMixer.whole`."""
        return dict(fields, attention_kv_heads=[])

    def own_part(self, name: str, tensor: Tensor) -> Tensor:
        """See :meth:`AttentionMixer.own_part`."""
        if name.partition('.')[0] in self.attention:
            return tensor
        if tensor.shape == self.get_parameter(name).shape:
            return tensor  # nothing of it belongs to a head
        parts = (tensor,)
        if name.startswith('conv1d.'):
            size = len(tensor) // (2 + self.repeats)
            parts = tensor.split((size, size, size * self.repeats))
        return torch.cat([self._pick(part, self._linear, dim=0) for part in parts])

    @property
    def _linear(self) -> list[int]:
        """The key-value heads that are not kept."""
        return [i for i in range(self.all_groups) if i not in self.kept]

    def _pick(self, x: Tensor, groups: Sequence[int], dim: int = -1) -> Tensor:
        """The parts of a dimension that belong to some key-value heads."""
        parts = x.chunk(self.all_groups, dim)
        return torch.cat([parts[i] for i in groups], dim)

    def rotation(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        padding_mask: Tensor | None = None,
        cache: Cache | None = None,
        position_ids: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Cosines and sines, and the factors ``[B, L, 1]`` of the logits if they grow.

        See :meth:`DecoderMixer.rotation`.
        """
        rows = padding_mask, cache, position_ids
        turns = super().rotation(hidden_states, position_embeddings, *rows)
        base = self.config.attention_logit_scaling
        if not self.kept or base is None:
            return turns
        if position_ids is None:
            position_ids = self.count_positions(hidden_states, padding_mask, cache)
        factors = (position_ids.float() + base).log() / math.log(base)
        factors = factors.expand(len(hidden_states), -1)[..., None]
        return (*turns, factors.to(hidden_states.dtype))

    def recur(
        self,
        vkq: Tensor,
        *parts: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        state: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        where = dict(cache=cache, padding_mask=padding_mask, begins=begins)
        if not self.kept:
            return super().recur(vkq, *parts, gaps=gaps, state=state, **where)
        count = 3 if self.config.attention_logit_scaling is not None else 2
        parts, turns = parts[:-count], parts[-count:]
        every = vkq.chunk(2 + self.repeats, dim=-1)
        every = (*every[:2], torch.cat(every[2:], dim=-1))
        attended = self.attend(*(self._pick(x, self.kept) for x in every), turns, where)
        linear = torch.cat([self._pick(x, self._linear) for x in every], dim=-1)
        parts = (*parts, *(turns[:2] if self.rope_in_mixer else ()))
        y, state = super().recur(linear, *parts, gaps=gaps, state=state, **where)
        return torch.cat((y, attended.to(y.dtype)), dim=-1), state

    def attend(
        self,
        v: Tensor,
        k: Tensor,
        q: Tensor,
        turns: Sequence[Tensor],
        where: Mapping[str, Any],
    ) -> Tensor:
        """Attention of the kept heads, ``[B, L, D]``.

        Args:
            v, k: ``[B, L, G * K]``.
            q: ``[B, L, H * K]``, the heads of a key-value head side by side.
            turns: See :meth:`rotation`.
            where: ``cache``, ``padding_mask`` and ``begins`` of :meth:`recur`.
        """
        cache, padding_mask = where['cache'], where['padding_mask']
        v, k, q = (x.unflatten(-1, (-1, self.head_dim)) for x in (v, k, q))
        if self.config.attention_rope:
            k, q = rotate(k, *turns[:2]), rotate(q, *turns[:2])
        for factor in turns[2:]:
            q = q * factor[..., None]
        v, k, q = (x.transpose(1, 2) for x in (v, k, q))
        length = q.shape[2]
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx, is_token=padding_mask)
            padding_mask = cache.layers[self.layer_idx].is_token
        whole = k.shape[2] == length and length > 1
        plain = padding_mask is None and where['begins'] is None
        mask = None
        if not plain or not whole and length > 1:
            mask = _visible(length, k, padding_mask, where['begins'])
        y = F.scaled_dot_product_attention(
            q,
            k.repeat_interleave(self.repeats, dim=1),
            v.repeat_interleave(self.repeats, dim=1),
            attn_mask=mask,
            is_causal=plain and whole,
            dropout_p=self.config.attention_dropout if self.training else 0.0,
        )
        return y.transpose(1, 2).flatten(-2)

    def gate(
        self, y_BLD: Tensor, hidden_states: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """All heads in the attention's order, the linear ones with norm and gate."""
        if not self.kept:
            return super().gate(y_BLD, hidden_states, dtype)
        linear, attended = y_BLD.tensor_split((self.d_inner,), dim=-1)
        linear = super().gate(linear, hidden_states)
        parts = dict(zip(self._linear, linear.chunk(self.num_groups, -1), strict=True))
        kept = attended.to(linear.dtype).chunk(len(self.kept), -1)
        parts |= dict(zip(self.kept, kept, strict=True))
        return torch.cat([parts[i] for i in range(self.all_groups)], dim=-1)

    @torch.no_grad()
    def calibrate(self, distances: Tensor, constant: Tensor) -> None:
        """See :meth:`DecoderMixer.calibrate`; the kept heads have nothing to set."""
        super().calibrate(self._pick(distances, self._linear), constant)

    # That of the linear heads alone would not be the layer's.
    mixing_matrix = DecoderMixer.mixing_matrix


def _visible(
    length: int, k: Tensor, is_token: Tensor | None, begins: Tensor | None
) -> Tensor:
    """Which keys a query sees, bool ``[B or 1, 1, L, T]``.

    Padding sees itself, so that no row of the mask is empty.

    Args:
        length: Number of queries L; they belong to the last keys.
        k: Keys ``[B, G, T, K]``.
        is_token: Bool ``[B, T]``, False for padding.
        begins: Bool ``[B, L]``, where a sequence begins; only if T is L.
    """
    keys = torch.arange(k.shape[2], device=k.device)
    queries = keys[-length:, None]
    seen = (keys <= queries)[None]
    if is_token is not None:
        seen = seen & (is_token[:, None] | (keys == queries))
    if begins is not None:
        ids = begins.cumsum(-1)
        seen = seen & (ids[:, :, None] == ids[:, None])
    return seen[:, None]


@DECODER_MIXERS.register_module('HeadsMamba2')
class HeadsMamba2Mixer(HeadBranch, Mamba2Mixer):
    """Attention in some heads and Mamba-2 in the others, see :class:`HeadBranch`.

    With ``norm='gated'``, the norm is over the channels of all linear heads.
    """

    inits = without_blocks(Mamba2Mixer.inits)


@DECODER_MIXERS.register_module('HeadsGatedDeltaNet')
class HeadsGatedDeltaNetMixer(HeadBranch, GatedDeltaNetMixer):
    """Attention in some heads, Gated DeltaNet in the others.

    See :class:`HeadBranch`.
    """


@DECODER_MIXERS.register_module('HeadsKDA')
class HeadsKDAMixer(HeadBranch, KDAMixer):
    """Attention in some heads, Kimi Delta Attention in the others.

    See :class:`HeadBranch`.
    """


def head_mixer(kind: type[DecoderMixer]) -> str | None:
    """The registered mixer that keeps some heads beside a linear mixer.

    Args:
        kind: Class of the linear mixer, or of the mixer itself.

    Returns:
        Its short name; None if there is none.
    """
    for name, cls in DECODER_MIXERS.module_dict.items():
        if issubclass(cls, HeadBranch) and kind in (cls, *cls.__bases__):
            return name
    return None
