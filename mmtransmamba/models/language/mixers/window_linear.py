"""Softmax attention with a window beside a linear mixer in one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from mmtransmamba.models.language.mixers.base import DecoderMixer
from mmtransmamba.models.language.mixers.gated_delta_net import GatedDeltaNetMixer
from mmtransmamba.models.language.mixers.inits import without_blocks
from mmtransmamba.models.language.mixers.kda import KDAMixer
from mmtransmamba.models.language.mixers.mamba2 import Mamba2Mixer
from mmtransmamba.models.language.mixers.window_attention import WindowAttention
from mmtransmamba.registry import DECODER_MIXERS

QUIET = 0.02
"""Factor of a calibrated linear branch that starts beside a window."""


class WindowBranch(WindowAttention):
    r"""Adds attention with a window and sinks to the linear mixer behind it.

    Both branches have the same q, k, v and output projection:
    :math:`y = W_O (\mathrm{linear}(q, k, v) + \mathrm{window}(q, k, v))`, the linear
    one after its convolution, norm and gate. ``mimic`` and ``calibrate`` start with an
    almost silent linear branch, so that the layer begins as the attention within the
    window; the calibration changes its projections little. Trained models may leave the
    linear branch unused (arXiv:2510.05901), see :meth:`branch_share`.

    The state of a layer is one row of numbers ``[B, N]``, in the type of the linear
    state: that state, then the window's of
    :class:`~mmtransmamba.models.language.mixers.sliding_window.SlidingWindowMixer`.

    Args:
        config, layer_idx: See :class:`DecoderMixer`.
        window: Number of visible last tokens, positive.
        sinks: Number of first tokens of a sequence that all of its tokens see,
            positive.
        **fields: Fields of the linear mixer.
    """

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        *,
        window: int = 64,
        sinks: int = 4,
        **fields: Any,
    ) -> None:
        super().__init__(config, layer_idx, **fields)
        self.window, self.sinks = window, sinks

    # Where the window is enough, the projections are right already.
    calibration_rate = 1e-3
    regresses_output = False

    @torch.no_grad()
    def calibrate(self, distances: Tensor, constant: Tensor) -> None:
        """See :meth:`DecoderMixer.calibrate`; the linear branch becomes quiet."""
        super().calibrate(distances, constant)
        last = self.z_proj if self.norm is None else self.norm
        if last is not None:
            last.weight.mul_(QUIET)

    def recur(
        self,
        vkq: Tensor,
        *parts: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        state: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        v, k, q = vkq.split((self.d_groups, self.d_groups, self.d_inner), dim=-1)
        where = dict(cache=cache, padding_mask=padding_mask, gaps=gaps, begins=begins)
        linear, window = self._split(state)
        y, linear = super().recur(vkq, *parts, state=linear, **where)
        z, window = self.attend(q, torch.cat((k, v), dim=-1), state=window, **where)
        both = torch.cat((y, z.to(y.dtype)), dim=-1)
        if window is None:
            return both, None
        # One tensor, as the cache keeps one for a layer.
        window = window.flatten(1).to(linear.dtype)
        return both, torch.cat((linear.flatten(1), window), dim=1)

    def _split(self, state: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The states of both branches."""
        if state is None:
            return None, None
        size = self.num_heads * self.head_dim**2
        linear = state[:, :size].unflatten(
            1, (self.num_heads, self.head_dim, self.head_dim)
        )
        window = state[:, size:].unflatten(1, (self.slots, 2 * self.d_groups + 1))
        return linear.contiguous(), window

    def gate(
        self, y_BLD: Tensor, hidden_states: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Sum of the branches, the linear one with its norm and gate, ``[B, L, D]``."""
        linear, window = y_BLD.chunk(2, dim=-1)
        linear = super().gate(linear, hidden_states)
        if self.watched is not None:
            self.watched.append(self._share(linear.detach(), window.detach()))
        return linear + window

    # That of the linear branch alone would not be the layer's.
    mixing_matrix = DecoderMixer.mixing_matrix

    watched: list[Tensor] | None = None
    """If a list, every forward pass appends :meth:`branch_share` to it."""

    def _share(self, linear: Tensor, window: Tensor) -> Tensor:
        weight = self.out_proj.weight.detach()
        norms = [
            torch.linalg.vector_norm((x.to(weight.dtype) @ weight.T).float(), dim=-1)
            for x in (linear, window)
        ]
        return (norms[0] / (norms[0] + norms[1]).clamp_min(1e-12)).mean()

    @torch.no_grad()
    def branch_share(self, hidden_states: Tensor, **rows: Any) -> float:
        r"""Share of the linear branch in the output, between 0 and 1.

        :math:`\|W_O y\| / (\|W_O y\| + \|W_O z\|)` with the linear branch y and the
        window's z, the mean over the tokens. 0 is a bypassed linear branch.

        Args:
            hidden_states: The layer's normalised input ``[B, L, C]``.
            **rows: Further arguments of the mixer.
        """
        before, self.watched = self.watched, []
        try:
            self(hidden_states, **rows)
            return float(self.watched[0])
        finally:
            self.watched = before


@DECODER_MIXERS.register_module('WindowMamba2')
class WindowMamba2Mixer(WindowBranch, Mamba2Mixer):
    """A window beside Mamba-2, see :class:`WindowBranch`."""

    inits = without_blocks(Mamba2Mixer.inits)


@DECODER_MIXERS.register_module('WindowGatedDeltaNet')
class WindowGatedDeltaNetMixer(WindowBranch, GatedDeltaNetMixer):
    """A window beside Gated DeltaNet, see :class:`WindowBranch`."""


@DECODER_MIXERS.register_module('WindowKDA')
class WindowKDAMixer(WindowBranch, KDAMixer):
    """A window beside Kimi Delta Attention, see :class:`WindowBranch`."""
