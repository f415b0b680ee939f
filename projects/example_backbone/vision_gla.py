"""VisionGLA: gated linear attention over the tokens of an image, in two directions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from mmtransmamba.models.backbones.base import VisionBackbone, drop_path_rates
from mmtransmamba.models.pos_embed import resize_pos_embed
from mmtransmamba.models.taps import (
    DirectionFeature,
    DirectionTap,
    LayerTap,
    patch_index,
)
from mmtransmamba.ops import scan_order
from mmtransmamba.registry import MODELS, WEIGHT_MAPS
from mmtransmamba.transfer.weight_maps import EXACT, Rule, Space, WeightMap, from_vit

CHUNK_SIZE = 16
DECAY_RANK = 16
DECAY_TEMPERATURE = 16  # brings the decay of a fresh layer to 0.5 ** (1 / 16) = 0.96


def gated_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, chunk_size: int = CHUNK_SIZE
) -> Tensor:
    r"""Linear attention whose memory decays at a data-dependent rate.

    .. math::
        S_t = \mathrm{diag}(\alpha_t) S_{t-1} + k_t v_t^\top, \qquad
        y_t = S_t^\top q_t, \qquad S_0 = 0

    Computed in chunks (Yang et al., "Gated Linear Attention Transformers with
    Hardware-Efficient Training", 2024): within a chunk by a masked product of queries
    and keys, between chunks through the state, so the cost is linear in the length.
    Only decays from an earlier to a later step are exponentiated, all at most 1, so
    nothing overflows, however fast the memory decays. Computed in float32 at least.

    Args:
        q, k: Queries and keys ``[..., L, N]``.
        v: Values ``[..., L, D]``.
        log_decay: :math:`\log \alpha` ``[..., L, N]``, finite and at most 0.
        chunk_size: Steps T per chunk.

    Returns:
        ``[..., L, D]`` in the dtype of ``v``.
    """
    length, dtype = v.shape[-2], torch.promote_types(v.dtype, torch.float32)
    padding = -length % chunk_size
    with _full_precision(v.device.type):
        q, k, v_, log_decay = (
            F.pad(x.to(dtype), (0, 0, 0, padding)).unflatten(-2, (-1, chunk_size))
            for x in (q, k, v, log_decay)
        )
        # Log decay from the chunk's start to step t, and from step j to a later step t.
        # The latter is not computed as a difference of the former, which would lose
        # precision.
        since_start = log_decay.cumsum(-2)
        later = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=v.device)
        later = later.tril(-1).unsqueeze(-1)
        between = (log_decay.unsqueeze(-2) * later).cumsum(-3)
        between = between.masked_fill(later.transpose(0, 1), float('-inf')).exp()
        scores = torch.einsum('...tn,...tjn,...jn->...tj', q, between, k)
        within = scores @ v_

        until_end = between[..., -1, :, :]
        added = (k * until_end).transpose(-1, -2) @ v_  # to the state, by each chunk
        kept = since_start[..., -1, :].exp()
        state, states = torch.zeros_like(added[..., 0, :, :]), []
        for fade, new in zip(kept.unbind(-2), added.unbind(-3), strict=True):
            states.append(state)
            state = fade.unsqueeze(-1) * state + new
        y = within + (q * since_start.exp()) @ torch.stack(states, dim=-3)
    return y.flatten(-3, -2)[..., :length, :].to(v.dtype)


def _full_precision(device_type: str) -> AbstractContextManager:
    """Switch autocast off; devices without autocast, such as meta, need nothing."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


class GLAMixer(nn.Module):
    """Gated linear attention from the first token to the last, and back.

    Both directions read the same queries, keys and values but decay at separate rates.
    Their outputs, normalised head by head, are added, gated and projected.

    Args:
        embed_dims: Width C of the tokens.
        num_heads: Number of heads, a divisor of ``embed_dims``.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.decay = nn.Sequential(
            nn.Linear(embed_dims, DECAY_RANK, bias=False),
            nn.Linear(DECAY_RANK, 2 * embed_dims),
        )
        self.gate = nn.Linear(embed_dims, embed_dims)
        self.norm = nn.RMSNorm(embed_dims // num_heads, eps=1e-6)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.direction_tap = DirectionTap(embed_dims, num_directions=2)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Mix ``tokens`` ``[B, L, C]`` of a ``grid`` with ``H * W == L``."""

        def both_ways(forwards: Tensor, backwards: Tensor) -> Tensor:
            """``[B, L, C]`` each, in scan order and by heads: ``[B, 2, h, L, d]``."""
            x_B2LC = torch.stack((forwards, backwards.flip(1)), dim=1)
            return x_B2LC.unflatten(-1, (self.num_heads, -1)).transpose(2, 3)

        q, k, v = (both_ways(x, x) for x in self.qkv(tokens).chunk(3, dim=-1))
        decays = F.logsigmoid(self.decay(tokens)) / DECAY_TEMPERATURE
        log_decay = both_ways(*decays.chunk(2, dim=-1))
        y = gated_linear_attention(q * q.shape[-1] ** -0.5, k, v, log_decay)
        y_B2LC = self.norm(y).transpose(2, 3).flatten(-2)

        gate_BLC = F.silu(self.gate(tokens))
        self._tell(y_B2LC, gate_BLC, grid)
        merged = y_B2LC[:, 0] + y_B2LC[:, 1].flip(1)
        return self.proj(merged * gate_BLC)

    def _tell(self, y_B2LC: Tensor, gate_BLC: Tensor, grid: tuple[int, int]) -> None:
        """Pass the directions' outputs to the tap's listener, if there is one."""
        order = scan_order.bidirectional(y_B2LC.shape[2], str(y_B2LC.device))
        steps = self.direction_tap.steps(order)
        if steps is None:
            return
        token_index = patch_index(order, steps)
        directions = torch.arange(2, device=steps.device).unsqueeze(1)

        def project(values_B2MC: Tensor) -> Tensor:
            return F.linear(values_B2MC * gate_BLC[:, token_index], self.proj.weight)

        values = y_B2LC[:, directions, steps]
        self.direction_tap(DirectionFeature(values, token_index, grid, project))


class GLABlock(nn.Module):
    """A Transformer block with the mixer in place of the attention.

    Args:
        embed_dims: Width C of the tokens.
        num_heads: Heads of the mixer.
        mlp_ratio: Width of the feed-forward layer as a multiple of C.
        drop_path: Probability of skipping a residual branch of a sample.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        hidden = int(mlp_ratio * embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims, eps=1e-6)
        self.mixer = GLAMixer(embed_dims, num_heads)
        self.norm2 = nn.LayerNorm(embed_dims, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(embed_dims, hidden), nn.GELU(), nn.Linear(hidden, embed_dims)
        )
        self.drop_path = StochasticDepth(drop_path, mode='row')

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens ``[B, L, C]`` of a ``grid`` to tokens of the same shape."""
        tokens = tokens + self.drop_path(self.mixer(self.norm1(tokens), grid))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


@MODELS.register_module()
class VisionGLA(VisionBackbone):
    """Patches, position embedding and blocks of gated linear attention.

    Args:
        embed_dims: Width C of the tokens.
        depth: Number of blocks.
        num_heads: Heads of the mixers.
        mlp_ratio: Width of the feed-forward layers as a multiple of C.
        img_size: Size in pixels that ``pos_embed`` is created for (side, or height and
            width). For images of another size, it is resampled.
        patch_size: Pixels per token and axis.
        in_channels: Channels of the images.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0.
        out_indices: Blocks whose feature maps are returned; negative from the end.
        with_cp: Recompute the blocks in the backward pass instead of storing
            their activations.
        init_cfg: mmengine initialisation config.
    """

    NO_DECAY = ('pos_embed',)

    def __init__(
        self,
        embed_dims: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self._check_positive(depth=depth, num_heads=num_heads, in_channels=in_channels)
        if embed_dims % num_heads:
            raise self._error(
                f'embed_dims={embed_dims} must be a multiple of num_heads={num_heads}.'
            )
        self.depth = depth
        self.patch_size = patch_size
        self.with_cp = with_cp
        self.out_indices = self._resolve_indices(out_indices, depth)
        self.pos_embed_grid = self._grid_of(img_size, patch_size)

        self.patch_embed = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)
        num_patches = self.pos_embed_grid[0] * self.pos_embed_grid[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, num_patches, embed_dims))
        self.layers = nn.ModuleList(
            GLABlock(embed_dims, num_heads, mlp_ratio, rate)
            for rate in drop_path_rates(drop_path_rate, depth)
        )
        self.layer_taps = nn.ModuleList(LayerTap(embed_dims) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self._register_load_state_dict_pre_hook(self._fit_pos_embed)

    def reset_parameters(self) -> None:
        """Truncated normal (std 0.02) and zero bias, as in a ViT."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps ``[B, C, H, W]`` of the blocks in ``out_indices``.

        The last block's map is normalised.

        Args:
            images: ``[B, in_channels, height, width]``, normalised.

        Raises:
            ValueError: An image side is smaller than one patch, or the shape is wrong.
        """
        self._check_images(images)
        x = self.patch_embed(images)
        grid = (x.shape[2], x.shape[3])
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + resize_pos_embed(self.pos_embed, self.pos_embed_grid, grid)
        maps = {}
        for i, (layer, tap) in enumerate(
            zip(self.layers, self.layer_taps, strict=True)
        ):
            tokens = tap(self._run(layer, tokens, grid), grid)
            if i in self.out_indices:
                out = self.norm(tokens) if i == self.depth - 1 else tokens
                maps[i] = out.transpose(1, 2).unflatten(2, grid)
        return tuple(maps[i] for i in self.out_indices)


@WEIGHT_MAPS.register_module()
def vit_to_gla() -> WeightMap:
    """The weights that a VisionGLA takes from a ViT or DeiT: all but decay and gate."""
    residual = Space(
        'residual',
        source=(('norm.weight', 0), ('blocks.{i}.attn.proj.weight', 0)),
        target=('norm.weight', 0),
    )
    heads = Space(
        'heads',
        source=(('blocks.{i}.attn.proj.weight', 1),),
        target=('layers.{i}.mixer.proj.weight', 1),
        per_layer=True,
    )
    hidden = Space(
        'hidden',
        source=(('blocks.{i}.mlp.fc1.weight', 0),),
        target=('layers.{i}.mlp.0.weight', 0),
        per_layer=True,
    )
    qkv = ('heads', 'heads', 'heads')

    def linear(target: str, source: str, outputs, inputs) -> tuple[Rule, Rule]:
        return (
            Rule(f'{target}.weight', f'{source}.weight', (outputs, inputs), fan_in=1),
            Rule(f'{target}.bias', f'{source}.bias', (outputs,)),
        )

    def norm(target: str, source: str) -> tuple[Rule, Rule]:
        return tuple(
            Rule(f'{target}.{leaf}', f'{source}.{leaf}', ('residual',))
            for leaf in ('weight', 'bias')
        )

    layer, block = 'layers.{i}.', 'blocks.{i}.'
    return WeightMap(
        name='vit_to_gla',
        target_layer=layer,
        source_layer=block,
        rules=(
            Rule(
                'patch_embed.weight',
                'patch_embed.proj.weight',
                ('residual', EXACT, EXACT, EXACT),
            ),
            Rule('patch_embed.bias', 'patch_embed.proj.bias', ('residual',)),
            Rule(
                'pos_embed', 'pos_embed', (EXACT, EXACT, 'residual'), method='pos_embed'
            ),
            *norm(layer + 'norm1', block + 'norm1'),
            *linear(layer + 'mixer.qkv', block + 'attn.qkv', qkv, 'residual'),
            *linear(layer + 'mixer.proj', block + 'attn.proj', 'residual', 'heads'),
            *norm(layer + 'norm2', block + 'norm2'),
            *linear(layer + 'mlp.0', block + 'mlp.fc1', 'hidden', 'residual'),
            *linear(layer + 'mlp.2', block + 'mlp.fc2', 'residual', 'hidden'),
            *norm('norm', 'norm'),
            *linear('head.fc', 'head', EXACT, 'residual'),
        ),
        spaces=(residual, heads, hidden),
        rename=from_vit,
    )
