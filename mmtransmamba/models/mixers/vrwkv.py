"""Vision-RWKV's mixers: spatial mix (v4 and v6), channel mix and the token shift."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.mixers.norm_share import share_of_norm
from mmtransmamba.models.mixers.projections import without_bias
from mmtransmamba.models.taps import DirectionFeature, DirectionTap, patch_index
from mmtransmamba.ops import bi_wkv, bi_wkv6
from mmtransmamba.ops.scan_order import bidirectional

NUM_DIRECTIONS = 2
SHIFTS = 4  # from the left, from the right, from above, from below
HIDDEN_RATE = 4
MIX_RANK = 32
DECAY_RANK = 64
HEAD_NORM_EPS = 1e-5


def q_shift(tokens: Tensor, grid: tuple[int, int], heads: int = 1) -> Tensor:
    """Replace every token by its neighbours, a quarter of the channels from each.

    Args:
        tokens: ``[B, L, C]`` of a ``grid`` with ``H * W == L``.
        grid: Rows and columns.
        heads: Parts of the channels, each of which is split into quarters.

    Returns:
        ``[B, L, C]``: the quarters hold the left, right, upper and lower neighbour,
        zeros where there is none.
    """
    x_BHWNC = tokens.unflatten(2, (heads, SHIFTS, -1)).unflatten(1, grid)
    left, right, upper, lower = x_BHWNC.unbind(-2)
    # F.pad counts from the last dimension: channels, heads, columns, rows.
    shifted = (
        F.pad(left[:, :, :-1], (0, 0, 0, 0, 1, 0)),
        F.pad(right[:, :, 1:], (0, 0, 0, 0, 0, 1)),
        F.pad(upper[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0)),
        F.pad(lower[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1)),
    )
    return torch.stack(shifted, dim=-2).flatten(3).flatten(1, 2)


class _SpatialMix(nn.Module):
    """Base of the spatial mixes of both versions.

    Args:
        embed_dims: Width C of the tokens, a multiple of 4.
        layer: Number of the block, from 0.
        depth: Number of blocks.
    """

    def __init__(self, embed_dims: int, layer: int, depth: int) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        # Relative depth of the block: 0 to 1, and 1 to almost 0.
        self.depth_ratio = layer / max(depth - 1, 1)
        self.height_ratio = 1 - layer / depth
        self.receptance = nn.Linear(embed_dims, embed_dims, bias=False)
        self.key = nn.Linear(embed_dims, embed_dims, bias=False)
        self.value = nn.Linear(embed_dims, embed_dims, bias=False)
        self.output = nn.Linear(embed_dims, embed_dims, bias=False)
        self.direction_tap = DirectionTap(embed_dims, NUM_DIRECTIONS)

    def _tap_index(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scan order of the directions, and the tapped steps."""
        order = bidirectional(tokens.shape[1], device=str(tokens.device))
        return order, self.direction_tap.steps(order)

    def _tell(
        self,
        tapped: Tensor,
        token_index: Tensor,
        grid: tuple[int, int],
        y_BLC: Tensor,
        gate_BLC: Tensor,
        norm: nn.GroupNorm | nn.LayerNorm | None,
    ) -> None:
        """Pass the directions' outputs ``[B, K, M, C]`` to the tap's listener."""

        def project(values: Tensor) -> Tensor:
            gate = gate_BLC[:, token_index]
            if norm is not None:
                values = share_of_norm(values, y_BLC, token_index, norm)
            return without_bias(self.output, values.to(gate.dtype) * gate)

        self.direction_tap(DirectionFeature(tapped, token_index, grid, project))


class VRWKVSpatialMix(_SpatialMix):
    r"""Spatial mix of Vision-RWKV: bidirectional WKV with a decay per channel (v4).

    Receptance r, key k and value v are computed from the tokens, mixed with their
    shifted neighbours channel by channel. The output is
    ``output(sigmoid(r) * wkv(k, v))``
    with :func:`mmtransmamba.ops.bi_wkv`, whose decay and bonus are divided by the
    number of tokens. Names and shapes of the parameters are those of the official
    checkpoints (Duan et al., "Vision-RWKV: Efficient and Scalable Visual Perception
    with RWKV-Like Architectures", 2024).

    Args:
        embed_dims: Width C of the tokens, a multiple of 4.
        layer: Number of the block, from 0.
        depth: Number of blocks.
        key_norm: Normalise the WKV output before the gate.
        wkv_rule: ``'formula'`` or ``'cuda'``, see :func:`mmtransmamba.ops.bi_wkv`.
    """

    def __init__(
        self,
        embed_dims: int,
        layer: int,
        depth: int,
        key_norm: bool = False,
        wkv_rule: str = 'formula',
    ) -> None:
        super().__init__(embed_dims, layer, depth)
        self.wkv_rule = wkv_rule
        self.spatial_decay = nn.Parameter(torch.empty(embed_dims))
        self.spatial_first = nn.Parameter(torch.empty(embed_dims))
        self.spatial_mix_k = nn.Parameter(torch.empty(1, 1, embed_dims))
        self.spatial_mix_v = nn.Parameter(torch.empty(1, 1, embed_dims))
        self.spatial_mix_r = nn.Parameter(torch.empty(1, 1, embed_dims))
        self.key_norm = nn.LayerNorm(embed_dims) if key_norm else None
        self.reset_mix_parameters()

    @torch.no_grad()
    def reset_mix_parameters(self) -> None:
        """RWKV-4's values for decay, bonus and mixing, by channel and depth.

        The decay rises from -5 to 3 over the channels, later in deeper blocks; the
        bonus is log(0.3) plus a zigzag of a half; the share of the token itself rises
        from 0 to 1 over the channels, earlier in deeper blocks.
        """
        rising = torch.linspace(0, 1, self.embed_dims, device='cpu')
        self.spatial_decay.copy_(-5 + 8 * rising ** (0.7 + 1.3 * self.depth_ratio))
        self.spatial_first.copy_(math.log(0.3) + 0.5 * _zigzag(self.embed_dims))
        share = _channel_ratio(self.embed_dims)
        self.spatial_mix_k.copy_(share**self.height_ratio)
        self.spatial_mix_v.copy_(share**self.height_ratio + 0.3 * self.depth_ratio)
        self.spatial_mix_r.copy_(share ** (0.5 * self.height_ratio))

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Mix ``tokens`` ``[B, L, C]`` of a ``grid`` with ``H * W == L``."""
        shifted = q_shift(tokens, grid)
        k = self.key(torch.lerp(shifted, tokens, self.spatial_mix_k.to(tokens.dtype)))
        v = self.value(torch.lerp(shifted, tokens, self.spatial_mix_v.to(tokens.dtype)))
        r = self.receptance(
            torch.lerp(shifted, tokens, self.spatial_mix_r.to(tokens.dtype))
        )
        order, steps = self._tap_index(tokens)
        length = tokens.shape[1]
        y, tapped = bi_wkv(
            self.spatial_decay / length,
            self.spatial_first / length,
            k,
            v,
            tap_index=steps,
            rule=self.wkv_rule,
        )
        gate = torch.sigmoid(r)
        if tapped is not None:
            index = patch_index(order, steps)
            self._tell(tapped, index, grid, y, gate, self.key_norm)
        if self.key_norm is not None:
            y = self.key_norm(y)
        return self.output(gate * y)


class VRWKV6SpatialMix(_SpatialMix):
    r"""Spatial mix of Vision-RWKV with RWKV v6: heads with one matrix state each.

    The decay, and the share of the shifted neighbours in decay, key, value, receptance
    and gate, depend on the token through low-rank maps. The output is
    ``output(ln_x(wkv) * SiLU(g))`` with :func:`mmtransmamba.ops.bi_wkv6` and a norm
    per head. Names and shapes of the parameters are those of the official checkpoints.

    Args:
        embed_dims: Width C of the tokens.
        layer: Number of the block, from 0.
        depth: Number of blocks.
        num_heads: Number of heads; the width of one must be a multiple of 4.
    """

    MIXED = ('w', 'k', 'v', 'r', 'g')

    def __init__(self, embed_dims: int, layer: int, depth: int, num_heads: int) -> None:
        super().__init__(embed_dims, layer, depth)
        self.num_heads = num_heads
        for name in ('x', *self.MIXED):
            vector = nn.Parameter(torch.empty(1, 1, embed_dims))
            self.register_parameter(f'time_maa_{name}', vector)
        mixed = len(self.MIXED)
        self.time_maa_w1 = nn.Parameter(torch.empty(embed_dims, mixed * MIX_RANK))
        self.time_maa_w2 = nn.Parameter(torch.empty(mixed, MIX_RANK, embed_dims))
        self.time_decay = nn.Parameter(torch.empty(1, 1, embed_dims))
        self.time_decay_w1 = nn.Parameter(torch.empty(embed_dims, DECAY_RANK))
        self.time_decay_w2 = nn.Parameter(torch.empty(DECAY_RANK, embed_dims))
        self.time_faaaa = nn.Parameter(torch.empty(num_heads, embed_dims // num_heads))
        self.gate = nn.Linear(embed_dims, embed_dims, bias=False)
        self.ln_x = nn.GroupNorm(num_heads, embed_dims, eps=HEAD_NORM_EPS)
        self.reset_mix_parameters()

    @torch.no_grad()
    def reset_mix_parameters(self) -> None:
        """RWKV-6's values for decay, bonus and mixing, by channel and depth.

        The logarithm of the decay rate rises from -6 to -1 over the channels, later in
        deeper blocks; the bonus falls to 0 over the channels, from higher values in
        deeper blocks, with a zigzag of a tenth; the share of the neighbours falls from
        1 to 0. The low-rank maps are initialised within 1e-4 of zero.
        """
        share = _channel_ratio(self.embed_dims)
        neighbours = 1 - share**self.height_ratio
        for name in ('x', 'w', 'k'):
            getattr(self, f'time_maa_{name}').copy_(neighbours)
        self.time_maa_v.copy_(neighbours - 0.3 * self.depth_ratio)
        for name in ('r', 'g'):
            value = 1 - share ** (0.5 * self.height_ratio)
            getattr(self, f'time_maa_{name}').copy_(value)
        for name in ('maa_w1', 'maa_w2', 'decay_w1', 'decay_w2'):
            nn.init.uniform_(getattr(self, f'time_{name}'), -1e-4, 1e-4)
        rising = torch.linspace(0, 1, self.embed_dims, device='cpu')
        decay = -6 + 5 * rising ** (0.7 + 1.3 * self.depth_ratio)
        self.time_decay.copy_(decay.view(1, 1, -1))
        bonus = self.depth_ratio * (1 - rising) + 0.1 * _zigzag(self.embed_dims)
        self.time_faaaa.copy_(bonus.view_as(self.time_faaaa))

    def _mixtures(self, tokens: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """Tokens mixed with their neighbours, once for each of :attr:`MIXED`."""
        difference = q_shift(tokens, grid, self.num_heads) - tokens
        mixture = tokens + difference * self.time_maa_x
        low_rank = torch.tanh(mixture @ self.time_maa_w1)
        shares = low_rank.unflatten(2, (len(self.MIXED), -1)).unbind(2)
        return [
            tokens + difference * (getattr(self, f'time_maa_{name}') + share @ w2)
            for name, share, w2 in zip(
                self.MIXED, shares, self.time_maa_w2, strict=True
            )
        ]

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Mix ``tokens`` ``[B, L, C]`` of a ``grid`` with ``H * W == L``."""
        for_w, for_k, for_v, for_r, for_g = self._mixtures(tokens, grid)
        decay = torch.tanh(for_w @ self.time_decay_w1) @ self.time_decay_w2
        order, steps = self._tap_index(tokens)
        y, tapped = bi_wkv6(
            self.receptance(for_r),
            self.key(for_k),
            self.value(for_v),
            self.time_decay + decay,
            self.time_faaaa,
            tap_index=steps,
        )
        gate = F.silu(self.gate(for_g))
        if tapped is not None:
            index = patch_index(order, steps)
            self._tell(tapped, index, grid, y, gate, self.ln_x)
        normed = self.ln_x(y.flatten(0, 1).to(self.ln_x.weight.dtype)).view_as(y)
        return self.output(normed * gate)


class VRWKVChannelMix(nn.Module):
    """Channel mix of Vision-RWKV: a gated feed-forward layer with squared ReLU.

    Args:
        embed_dims: Width C of the tokens.
        layer: Number of the block, from 0.
        depth: Number of blocks.
        key_norm: Normalise the hidden units.
        num_heads: Parts of the channels for :func:`q_shift`.
    """

    def __init__(
        self,
        embed_dims: int,
        layer: int,
        depth: int,
        key_norm: bool = False,
        num_heads: int = 1,
    ) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.height_ratio = 1 - layer / depth
        self.num_heads = num_heads
        hidden = HIDDEN_RATE * embed_dims
        self.spatial_mix_k = nn.Parameter(torch.empty(1, 1, embed_dims))
        self.spatial_mix_r = nn.Parameter(torch.empty(1, 1, embed_dims))
        self.key = nn.Linear(embed_dims, hidden, bias=False)
        self.key_norm = nn.LayerNorm(hidden) if key_norm else None
        self.receptance = nn.Linear(embed_dims, embed_dims, bias=False)
        self.value = nn.Linear(hidden, embed_dims, bias=False)
        self.reset_mix_parameters()

    @torch.no_grad()
    def reset_mix_parameters(self) -> None:
        """The token's own share rises over the channels, earlier in deeper blocks."""
        share = _channel_ratio(self.embed_dims) ** self.height_ratio
        self.spatial_mix_k.copy_(share)
        self.spatial_mix_r.copy_(share)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens ``[B, L, C]`` of a ``grid`` to tokens of the same shape."""
        shifted = q_shift(tokens, grid, self.num_heads)
        for_k, for_r = (
            torch.lerp(shifted, tokens, mix.to(tokens.dtype))
            for mix in (self.spatial_mix_k, self.spatial_mix_r)
        )
        hidden = F.relu(self.key(for_k)).square()
        if self.key_norm is not None:
            hidden = self.key_norm(hidden)
        return torch.sigmoid(self.receptance(for_r)) * self.value(hidden)


def _channel_ratio(channels: int) -> Tensor:
    """``c / C`` for every channel: ``[1, 1, C]``."""
    return (torch.arange(channels, device='cpu') / channels).view(1, 1, -1)


def _zigzag(channels: int) -> Tensor:
    """0, 1, -1, 0, 1, -1, ... over the channels."""
    return (torch.arange(channels, device='cpu') + 1) % 3 - 1
