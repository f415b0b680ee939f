"""What the mixers of hybrid decoders share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache

from mmtransmamba.compat import announce_adapters
from mmtransmamba.models.language.arguments import known_arguments
from mmtransmamba.models.language.cache_names import either_name
from mmtransmamba.models.language.mixers.inits import Init
from mmtransmamba.models.language.packing import Packing, TracedPacking, windows
from mmtransmamba.models.language.padding import places
from mmtransmamba.models.mixers.step_sizes import init_step_sizes


class DecoderMixer(nn.Module):
    """A causal mixer called as a decoder layer calls its attention.

    A subclass may have a depthwise causal ``conv1d`` over its channels, then
    ``conv_activation`` too. What a cache keeps for the layer are the convolution's
    inputs and the state of the recurrence.

    It is registered in :data:`~mmtransmamba.registry.DECODER_MIXERS`. The keyword-only
    arguments of its constructor are the fields of ``mixer`` in a hybrid's config, and
    its class attributes declare what other parts of the package have to know.

    Args:
        config: The decoder's config, with the fields of
            :class:`~mmtransmamba.models.language.config.HybridFields`.
        layer_idx: Number of the layer, under which the cache keeps its states.

    Attributes:
        choices: Accepted values of fields that are names.
        follows: Fields that a conversion sets to what the teacher has, among
            ``in_bias``, ``out_bias``, ``qk_norm`` and ``norm_eps``.
        inits: Ways to initialise it, by name.
        attention: Modules of the attention (names in different families) by the
            module of the mixer that takes their weights.
        stacked: Sizes of the parts that a tensor's rows consist of, from the shapes of
            the mixer's tensors, for tensors that hold several things.
        own_init: Linear layers whose weights :meth:`reset_parameters` or PyTorch
            initialises, not the decoder's normal distribution.
        groups: Modules and parameters in the groups ``'qkv'`` and ``'out_proj'`` of
            the stages of training; all others are new, ``'ssm'``.
        float32: Endings of the names of parameters that stay in float32.
        adapters: Modules that PEFT gives adapters to by default, by the attention's
            module to which they correspond.
    """

    choices: ClassVar[dict[str, tuple[str, ...]]] = {}
    follows: ClassVar[tuple[str, ...]] = ()
    inits: ClassVar[dict[str, Init]] = {}
    attention: ClassVar[dict[str, tuple[str, ...]]] = {}
    stacked: ClassVar[dict[str, Callable[[Callable], tuple[int, ...]]]] = {}
    own_init: ClassVar[tuple[str, ...]] = ()
    groups: ClassVar[dict[str, tuple[str, ...]]] = {'out_proj': ('out_proj',)}
    float32: ClassVar[tuple[str, ...]] = ()
    adapters: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        announce_adapters(cls.adapters)

    @classmethod
    def group_of(cls, name: str) -> str:
        """The group of stages that a parameter of the mixer belongs to."""
        part = name.partition('.')[0]
        found = (group for group, parts in cls.groups.items() if part in parts)
        return next(found, 'ssm')

    @classmethod
    def keeps_float32(cls, name: str) -> bool:
        """Whether a parameter of the mixer loses its meaning in half precision."""
        return f'.{name}'.endswith(tuple(f'.{ending}' for ending in cls.float32))

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx

    @either_name
    # What a layer tells its attention, which needs no telling here: the decoder has
    # made padding_mask and packing of the masks and positions.
    @known_arguments('attention_mask', 'position_embeddings', 'position_ids')
    def forward(
        self,
        hidden_states: Tensor,
        cache: Cache | None = None,
        padding_mask: Tensor | None = None,
        gaps: bool = True,
        packing: Packing | TracedPacking | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Mix tokens ``[B, L, C]``.

        Args:
            hidden_states: The layer's normalised input.
            cache: Cache whose states are continued and replaced.
            padding_mask: ``[B, L]``, 0 where a token is padding. The others are
                mixed, and the states become, as if it were not there.
            gaps: Whether padding may lie between tokens, what the cache has kept and
                what will follow included. Without it there is less to do, see
                :func:`~mmtransmamba.models.language.padding.has_gaps`.
            packing: Where the sequences lie if rows hold several; each has a
                convolution and a state of its own. Without a cache.
            use_cache: Whether the states have to be kept.

        Returns:
            Mixed tokens ``[B, L, C]``, and None where attention would return weights.

        Raises:
            TypeError: There is an argument that attention may know, but not a mixer.
            ValueError: The states have to be kept, but there is no cache.
        """
        if use_cache and cache is None:
            raise ValueError(
                f'Layer {self.layer_idx} got use_cache=True but no cache, so it would '
                'forget its state with every call: give it one, or use_cache=False.'
            )
        if packing is not None:

            def alone(*parts: Tensor, begins: Tensor | None = None) -> Tensor:
                return self.recur(*parts, begins=begins)[0]

            return self.mix(hidden_states, lambda *x: packing.apply(alone, *x)), None
        if padding_mask is not None:
            padding_mask = padding_mask.bool()

        def recur(*parts: Tensor) -> Tensor:
            state = None
            if cache is not None:
                state = cache.get_recurrent_state(self.layer_idx)
            output, state = self.recur(
                *parts, cache=cache, padding_mask=padding_mask, gaps=gaps, state=state
            )
            if cache is not None:
                cache.update_recurrent_state(state, self.layer_idx)
                if getattr(self, 'conv1d', None) is None:
                    self._note_tokens(cache, parts[0])
            return output

        return self.mix(hidden_states, recur), None

    def _note_tokens(self, cache: Cache, x: Tensor) -> None:
        """Have a cache know of tokens, which it else notes with the convolution."""
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
                everything else is done for each token alone.
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
            *parts: What depends on single tokens, ``[B, L, D]`` each.
            cache: Keeps what the convolution needs of the last tokens.
            padding_mask: Bool ``[B, L]``, False where a token is padding.
            gaps: See :meth:`forward`.
            state: To begin with, None for zero.
            begins: Bool ``[B, L]``, where a row begins anew. Without a cache.

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
        if begins is not None:
            out = self.conv1d(windows(x_BLD, taps, begins))
            return self.activate(out.view_as(x_BLD))
        order = None
        if padding_mask is not None:
            # A projection's bias has given padding a value.
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
                # As many as are kept push out what was, which is among them.
                x_BDL if order is None else x_BDL[..., -taps:],
                self.layer_idx,
                conv_kernel_size=taps,
                new_tokens=length,
            )
            x_BDL = window if order is None else x_BDL
        wanted = taps - 1 + (length if order is None else x_BLD.shape[1])
        missing = wanted - x_BDL.shape[-1]
        x_BDL = F.pad(x_BDL, (missing, 0)) if missing > 0 else x_BDL[..., -wanted:]
        out = self.conv1d(x_BDL).transpose(1, 2)
        if order is not None:
            out = out.gather(1, order[:, -length:])
        return self.activate(out)

    def activate(self, x: Tensor) -> Tensor:
        """What follows the convolution."""
        return F.silu(x) if self.conv_activation == 'silu' else x

    def reset_parameters(self) -> None:
        """Initialise what a decoder's own initialisation does not know."""
        raise NotImplementedError

    def calibrate(self, distances: Tensor, constant: Tensor) -> None:
        """Set decays and gates by how the attention behaves on text.

        For initialisations that are :attr:`Init.calibrated`.

        Args:
            distances: Mean distance of what each head attends to, in tokens, ``[H]``.
            constant: Direction ``[C]`` whose product with the layer's input is as near
                to 1 as possible, for projections without bias that start constant.
        """
        raise NotImplementedError


CONV_ACTIVATIONS = ('silu', 'identity')


def causal_conv(channels: int, size: int) -> nn.Conv1d:
    """Weights of a depthwise causal convolution, see :meth:`DecoderMixer.convolve`."""
    return nn.Conv1d(channels, channels, size, groups=channels)


def float32_parameter(*shape: int) -> nn.Parameter:
    """A parameter that is float32 also where a model is made in half precision."""
    return nn.Parameter(torch.empty(*shape, dtype=torch.float32))


def init_conv(conv: nn.Conv1d) -> None:
    """Uniform within the inverse root of the taps, as PyTorch does."""
    bound = conv.kernel_size[0] ** -0.5
    init.uniform_(conv.weight, -bound, bound)
    init.uniform_(conv.bias, -bound, bound)


def step_sizes_of(distances: Tensor) -> Tensor:
    r"""Biases of dt with which, for A = -1, half of a state is left after a distance.

    The inverse of softplus at :math:`\ln 2 / d` (arXiv:2606.16429).

    Args:
        distances: In tokens, ``[H]``; shorter ones count as 1.
    """
    return (math.log(2) / distances.double().clamp_min(1)).expm1().log()


def new_step_sizes(count: int, device: torch.device) -> Tensor:
    """Biases ``[count]`` of dt as in a new Mamba."""
    bias = torch.empty(count, dtype=torch.float32, device=device)
    init_step_sizes(bias)
    return bias
