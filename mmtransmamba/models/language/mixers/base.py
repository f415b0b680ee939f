"""Base of the mixers of hybrid decoders."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache

from mmtransmamba.models.language.arguments import known_arguments
from mmtransmamba.models.language.cache_names import either_name
from mmtransmamba.models.language.mixers.attention_mixer import AttentionMixer
from mmtransmamba.models.language.mixers.rotary import rotary_tables
from mmtransmamba.models.language.packing import Packing, TracedPacking, windows
from mmtransmamba.models.language.padding import places
from mmtransmamba.models.mixers.step_sizes import init_step_sizes


class DecoderMixer(AttentionMixer):
    """A causal mixer with the call signature of a decoder layer's attention.

    A subclass may have a depthwise causal ``conv1d`` over its channels, together with
    ``conv_activation``. A cache stores the convolution's inputs and the state of the
    recurrence for the layer.

    It is registered in :data:`~mmtransmamba.registry.DECODER_MIXERS`.

    Args:
        config: The decoder's config, with the fields of
            :class:`~mmtransmamba.models.language.config.HybridFields`.
        layer_idx: Index of the layer, under which the cache stores its states.

    Attributes:
        rope: Whether it rotates q and k; then :meth:`recur` takes cosines and sines
            ``[B, L, R]`` behind its other parts.
    """

    rope = False

    def repeated(self, x: Tensor) -> Tensor:
        """Key-value heads ``[B, L, G, K]``, once per query head that shares them."""
        repeats = self.num_heads // self.num_groups
        return x if repeats == 1 else x.repeat_interleave(repeats, dim=2)

    @either_name
    # Arguments of a layer's attention that are not needed here: the decoder derives
    # padding_mask and packing from the masks and positions.
    @known_arguments('attention_mask')
    def forward(
        self,
        hidden_states: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        packing: Packing | TracedPacking | None = None,
        use_cache: bool | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        position_ids: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Mix tokens ``[B, L, C]``.

        Args:
            hidden_states: The layer's normalised input.
            cache: Cache whose states are continued and replaced.
            padding_mask: ``[B, L]``, 0 where a token is padding. Other tokens are
                mixed, and the states updated, as if padding did not exist.
            gaps: Whether padding may lie between tokens, including cached and later
                ones. If not, less computation is needed, see
                :func:`~mmtransmamba.models.language.padding.has_gaps`.
            packing: Positions of the sequences if rows contain several; each has a
                separate convolution and state. Requires that there is no cache.
            use_cache: Whether the states must be stored.
            position_embeddings: Cosines and sines ``[B or 1, L, R]`` of the decoder's
                rotary embedding, for mixers that rotate.
            position_ids: Positions ``[B or 1, L]``, for attention with logits that grow
                with them and, without ``position_embeddings``, for mixers that rotate.

        Returns:
            Mixed tokens ``[B, L, C]``, and None in place of attention weights.

        Raises:
            TypeError: There is an argument that attention supports, but a mixer not.
            ValueError: The states must be stored, but there is no cache; or a mixer
                that rotates has a cache, but no ``position_embeddings``.
        """
        if use_cache and cache is None:
            raise ValueError(
                f'Layer {self.layer_idx} got use_cache=True but no cache, so it would '
                'forget its state with every call: give it one, or use_cache=False.'
            )
        rows = padding_mask, cache, position_ids
        turns = self.rotation(hidden_states, position_embeddings, *rows)
        if packing is not None:

            def alone(*parts: Tensor, begins: Tensor | None = None) -> Tensor:
                return self.recur(*parts, begins=begins)[0]

            return (
                self.mix(hidden_states, lambda *x: packing.apply(alone, *x, *turns)),
                None,
            )
        if padding_mask is not None:
            padding_mask = padding_mask.bool()

        def recur(*parts: Tensor) -> Tensor:
            state = None
            if cache is not None:
                state = cache.get_recurrent_state(self.layer_idx)
            output, state = self.recur(
                *parts,
                *turns,
                cache=cache,
                padding_mask=padding_mask,
                gaps=gaps,
                state=state,
            )
            if cache is not None:
                cache.update_recurrent_state(state, self.layer_idx)
                if getattr(self, 'conv1d', None) is None:
                    self._note_tokens(cache, parts[0])
            return output

        return self.mix(hidden_states, recur), None

    def rotation(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        padding_mask: Tensor | None = None,
        cache: Cache | None = None,
        position_ids: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Cosines and sines ``[B, L, R]`` for mixers that rotate, else nothing.

        They are further arguments of :meth:`recur`, behind those of :meth:`mix`.
        Without ``position_embeddings`` they follow from ``position_ids``, and without
        these the tokens that are not padding are counted.
        """
        if not self.rope:
            return ()
        batch = len(hidden_states)
        if position_embeddings is not None:
            return tuple(x.expand(batch, -1, -1) for x in position_embeddings)
        if position_ids is None:
            position_ids = self.count_positions(hidden_states, padding_mask, cache)
        positions = position_ids.clamp_min(0)
        cos, sin = rotary_tables(self.rotary_config, positions, hidden_states.dtype)
        return cos.expand(batch, -1, -1), sin.expand(batch, -1, -1)

    def count_positions(
        self, hidden_states: Tensor, padding_mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """Positions ``[B or 1, L]`` of tokens without cache, not counting padding."""
        if cache is not None:
            raise ValueError(
                f'Layer {self.layer_idx} rotates and continues from a cache, so it '
                "needs the decoder's position_embeddings."
            )
        if padding_mask is None:
            return torch.arange(hidden_states.shape[1], device=hidden_states.device)[
                None
            ]
        return (padding_mask.long().cumsum(-1) - 1).clamp_min(0)

    def mixing_matrix(
        self,
        hidden_states: Tensor,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
    ) -> Tensor:
        r"""The matrix :math:`M` of each head, with :math:`y_t = \sum_s M_{ts} v_s`.

        The counterpart of the attention's weights, before norm, gate and output
        projection. The values v are those after the convolution.

        Args:
            hidden_states: ``[B, L, C]``.
            padding_mask, gaps: See :meth:`forward`.

        Returns:
            ``[B, H, L, L]``, causal.
        """
        raise NotImplementedError(f'{type(self).__name__} has no mixing matrix')

    def _note_tokens(self, cache: Cache, x: Tensor) -> None:
        """Count tokens in a cache, which otherwise does so with the convolution."""
        cache.update_conv_state(
            x.new_zeros(len(x), 0, 1),
            self.layer_idx,
            conv_kernel_size=1,
            new_tokens=x.shape[1],
        )

    def mix(self, hidden_states: Tensor, recur: Callable[..., Tensor]) -> Tensor:
        """Output ``[B, L, C]``.

        Args:
            hidden_states: ``[B, L, C]``.
            recur: :meth:`recur` without its last arguments and without the state;
                everything else is computed for each token separately.
        """
        raise NotImplementedError

    def recur(
        self,
        *parts: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        state: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Convolution and recurrence along a sequence.

        Args:
            *parts: Projections of single tokens, ``[B, L, D]`` each.
            cache: Stores the last inputs of the convolution.
            padding_mask: Bool ``[B, L]``, False where a token is padding.
            gaps: See :meth:`forward`.
            state: Initial state, None for zero.
            begins: Bool ``[B, L]``, where a sequence begins. Only without a cache.

        Returns:
            Output ``[B, L, ...]`` and the state after the last token.
        """
        raise NotImplementedError

    def convolve(
        self,
        x_BLD: Tensor,
        cache: Cache | None,
        padding_mask: Tensor | None,
        gaps: bool = True,
        begins: Tensor | None = None,
    ) -> Tensor:
        """The causal convolution and its activation, ``[B, L, D]``."""
        length, taps = x_BLD.shape[1], self.conv1d.kernel_size[0]
        silu = self.conv_activation == 'silu'
        if begins is not None:
            return self.conv1d(windows(x_BLD, taps, begins), silu).view_as(x_BLD)
        order = None
        if padding_mask is not None:
            # A projection's bias has made padding nonzero.
            x_BLD = x_BLD.masked_fill(~padding_mask[..., None], 0)
        if padding_mask is not None and gaps:
            before = None if cache is None else cache.get_conv_state(self.layer_idx)
            if before is not None:
                x_BLD = torch.cat((before.transpose(1, 2), x_BLD), dim=1)
            order = places(padding_mask, x_BLD.shape[1] - length)[..., None]
            order = order.expand_as(x_BLD)
            x_BLD = torch.zeros_like(x_BLD).scatter(1, order, x_BLD)
        x_BDL = x_BLD.transpose(1, 2)
        if cache is not None:
            window = cache.update_conv_state(
                # The last inputs replace the stored ones, some of which are among them.
                x_BDL if order is None else x_BDL[..., -taps:],
                self.layer_idx,
                conv_kernel_size=taps,
                new_tokens=length,
            )
            x_BDL = window if order is None else x_BDL
        wanted = taps - 1 + (length if order is None else x_BLD.shape[1])
        missing = wanted - x_BDL.shape[-1]
        x_BDL = F.pad(x_BDL, (missing, 0)) if missing > 0 else x_BDL[..., -wanted:]
        out = self.conv1d(x_BDL, silu).transpose(1, 2)
        return out if order is None else out.gather(1, order[:, -length:])

    def calibrate(self, distances: Tensor, constant: Tensor) -> None:
        """Set decays and gates from statistics of the attention on text.

        For initialisations that are :attr:`Init.calibrated`.

        Args:
            distances: Mean distance in tokens of the tokens to which each head attends,
                ``[H]``.
            constant: Direction ``[C]`` whose product with the layer's input is as close
                to 1 as possible, for projections without bias that start constant.
        """
        raise NotImplementedError


CONV_ACTIVATIONS = ('silu', 'identity')


def float32_parameter(*shape: int) -> nn.Parameter:
    """A parameter that is float32 even if a model is created in half precision."""
    return nn.Parameter(torch.empty(*shape, dtype=torch.float32))


def init_conv(conv: nn.Conv1d) -> None:
    """Uniform within the inverse root of the number of taps, as in PyTorch."""
    bound = conv.kernel_size[0] ** -0.5
    init.uniform_(conv.weight, -bound, bound)
    init.uniform_(conv.bias, -bound, bound)


def step_sizes_of(distances: Tensor) -> Tensor:
    r"""Biases of dt such that, for A = -1, half of a state remains after a distance.

    The inverse of softplus at :math:`\ln 2 / d` (arXiv:2606.16429).

    Args:
        distances: In tokens, ``[H]``; shorter ones are treated as 1.
    """
    return (math.log(2) / distances.double().clamp_min(1)).expm1().log()


def new_step_sizes(count: int, device: torch.device) -> Tensor:
    """Biases ``[count]`` of dt as in a new Mamba."""
    bias = torch.empty(count, dtype=torch.float32, device=device)
    init_step_sizes(bias)
    return bias
