"""Vision-RWKV: a non-hierarchical vision backbone of bidirectional linear attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from mmtransmamba.models.backbones.arch import resolve_arch
from mmtransmamba.models.backbones.base import VisionBackbone, drop_path_rates
from mmtransmamba.models.mixers.vrwkv import (
    SHIFTS,
    VRWKV6SpatialMix,
    VRWKVChannelMix,
    VRWKVSpatialMix,
)
from mmtransmamba.models.pos_embed import resize_pos_embed
from mmtransmamba.models.taps import LayerTap
from mmtransmamba.registry import MODELS

WKV_RULES = ('formula', 'cuda')
HEAD_WIDTH = 64


class ConvPatchEmbed(nn.Module):
    """Image to tokens by one strided convolution.

    Args:
        in_channels: Channels of the image.
        embed_dims: Width of the tokens.
        patch_size: Pixels per token and axis.
    """

    def __init__(self, in_channels: int, embed_dims: int, patch_size: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens ``[B, L, C]`` in raster order, and their grid."""
        x = self.projection(images)
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])


class VRWKVBlock(nn.Module):
    """Spatial mix and channel mix, each in a residual branch.

    Args:
        embed_dims: Width C of the tokens.
        layer: Number of the block, from 0. The first one normalises the stream
            before its branches.
        depth: Number of blocks.
        num_heads: Heads of RWKV v6; None selects v4.
        post_norm: Normalise the output of a branch instead of its input.
        init_values: Initial scale of a branch's output; None for no scale.
        key_norm: Normalise inside the branches, see the mixers.
        drop_path: Probability of skipping a branch of a sample.
        wkv_rule: See :class:`VRWKVSpatialMix`.
    """

    def __init__(
        self,
        embed_dims: int,
        layer: int,
        depth: int,
        num_heads: int | None,
        post_norm: bool,
        init_values: float | None,
        key_norm: bool,
        drop_path: float,
        wkv_rule: str,
    ) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.init_values = init_values
        place = (embed_dims, layer, depth)
        self.ln0 = nn.LayerNorm(embed_dims) if layer == 0 else None
        self.ln1 = nn.LayerNorm(embed_dims)
        self.ln2 = nn.LayerNorm(embed_dims)
        if num_heads is None:
            self.att = VRWKVSpatialMix(*place, key_norm, wkv_rule)
            self.ffn = VRWKVChannelMix(*place, key_norm)
        else:
            self.att = VRWKV6SpatialMix(*place, num_heads)
            self.ffn = VRWKVChannelMix(*place, key_norm, num_heads)
        self.gamma1 = self.gamma2 = None
        if init_values is not None:
            self.gamma1 = nn.Parameter(torch.full((embed_dims,), float(init_values)))
            self.gamma2 = nn.Parameter(torch.full((embed_dims,), float(init_values)))
        self.drop_path = StochasticDepth(drop_path, mode='row')

    def _branch(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        mixer: nn.Module,
        norm: nn.Module,
        gamma: Tensor | None,
    ) -> Tensor:
        if self.post_norm:
            out = norm(mixer(tokens, grid))
        else:
            out = mixer(norm(tokens), grid)
        return tokens + self.drop_path(out if gamma is None else gamma * out)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens ``[B, L, C]`` of a ``grid`` to tokens of the same shape."""
        if self.ln0 is not None:
            tokens = self.ln0(tokens)
        tokens = self._branch(tokens, grid, self.att, self.ln1, self.gamma1)
        return self._branch(tokens, grid, self.ffn, self.ln2, self.gamma2)


def _arch(
    embed_dims: int,
    depth: int = 12,
    v6: bool = False,
    post_norm: bool = True,
    init_values: float | None = None,
    key_norm: bool = False,
    drop_path_rate: float = 0.0,
) -> dict[str, Any]:
    return dict(
        embed_dims=embed_dims,
        depth=depth,
        num_heads=embed_dims // HEAD_WIDTH if v6 else None,
        post_norm=post_norm,
        init_values=init_values,
        key_norm=key_norm,
        drop_path_rate=drop_path_rate,
    )


@MODELS.register_module()
class VRWKV(VisionBackbone):
    """Vision-RWKV (Duan et al., 2024), official parameter names, no class token.

    ``tiny``, ``small``, ``base`` and ``large`` use RWKV v4, ``v6-tiny``, ``v6-small``
    and ``v6-base`` use v6. Official checkpoints load unchanged into a classifier with a
    ``GlobalAveragePooling`` neck and a ``LinearClsHead``, except ``large``, whose head
    has two layers. :func:`mmtransmamba.models.load_pretrained` loads them into the bare
    backbone. A position embedding of another grid is resampled on loading; ``large``
    was trained at 192 and then at 384 pixels.

    Args:
        arch: A name in :attr:`ARCHS`, or a dict with its keys. ``num_heads`` is None
            for v4.
        img_size: Image size in pixels for which ``pos_embed`` is created (side, or
            height and width). Images of another size are accepted: the embedding is
            resampled.
        patch_size: Pixels per token and axis.
        in_channels: Channels of the images.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0
            in the first; the architecture's own rate by default.
        out_indices: Blocks whose feature maps are returned; negative from the end.
        wkv_rule: ``'formula'``, or ``'cuda'`` to reproduce the outputs of released v4
            weights to the last digits, on the slow reference backend; see
            :func:`mmtransmamba.ops.bi_wkv`.
        final_norm: Whether the last block's features have the norm ``ln1``. The
            official dense models have none; their adapter's tensors are then left over.
        with_cp: Recompute the blocks in the backward pass instead of storing
            their activations.
        init_cfg: mmengine initialisation config. With ``Pretrained`` the file is
            read by :func:`mmtransmamba.models.load_pretrained`.
    """

    ARCHS = {
        'tiny': _arch(192, post_norm=False),
        'small': _arch(384, init_values=1, drop_path_rate=0.3),
        'base': _arch(768, init_values=1e-5, drop_path_rate=0.5),
        'large': _arch(
            1024, depth=24, init_values=1e-5, key_norm=True, drop_path_rate=0.1
        ),
        'v6-tiny': _arch(192, v6=True, post_norm=False),
        'v6-small': _arch(384, v6=True, init_values=1e-5, drop_path_rate=0.3),
        'v6-base': _arch(768, v6=True, init_values=1e-5, drop_path_rate=0.5),
    }
    ADAPTER = (
        *('level_embed', 'spm.', 'interactions.', 'up.'),
        *(f'norm{scale}.' for scale in (1, 2, 3, 4)),
    )
    NO_DECAY = (
        'pos_embed',
        *('spatial_decay', 'spatial_first'),
        *('spatial_mix_k', 'spatial_mix_v', 'spatial_mix_r'),
        *('time_decay', 'time_faaaa'),
        *(f'time_maa_{name}' for name in ('x', 'w', 'k', 'v', 'r', 'g')),
        *('gamma1', 'gamma2'),
    )

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        out_indices: int | Sequence[int] = -1,
        wkv_rule: str = 'formula',
        final_norm: bool = True,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self._check_positive(patch_size=patch_size, in_channels=in_channels)
        settings = resolve_arch('VRWKV', arch, self.ARCHS)
        self.embed_dims: int = settings.pop('embed_dims')
        self.depth: int = settings.pop('depth')
        self._check_settings(wkv_rule, **settings)
        self.patch_size = patch_size
        self.with_cp = with_cp
        self.out_indices = self._resolve_indices(out_indices, self.depth)
        self.pos_embed_grid = self._grid_of(img_size, patch_size)

        self.patch_embed = ConvPatchEmbed(in_channels, self.embed_dims, patch_size)
        num_patches = self.pos_embed_grid[0] * self.pos_embed_grid[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, num_patches, self.embed_dims))
        arch_rate = settings.pop('drop_path_rate')
        rates = drop_path_rates(
            arch_rate if drop_path_rate is None else drop_path_rate, self.depth
        )
        self.layers = nn.ModuleList(
            VRWKVBlock(
                self.embed_dims,
                i,
                self.depth,
                **settings,
                drop_path=rate,
                wkv_rule=wkv_rule,
            )
            for i, rate in enumerate(rates)
        )
        self.layer_taps = nn.ModuleList(LayerTap(self.embed_dims) for _ in rates)
        self.ln1: nn.Module = nn.Identity()
        if final_norm:
            self.ln1 = nn.LayerNorm(self.embed_dims)
        else:
            self.allowed_left_over += self.ADAPTER
        self._register_load_state_dict_pre_hook(self._fit_pos_embed)

    def _check_settings(
        self, wkv_rule: str, num_heads: int | None, key_norm: bool, **_: Any
    ) -> None:
        self._check_positive(embed_dims=self.embed_dims, depth=self.depth)
        if num_heads is not None:
            self._check_positive(num_heads=num_heads)
        parts = SHIFTS * (num_heads or 1)
        if self.embed_dims % parts:
            raise self._error(
                f'embed_dims={self.embed_dims} must be a multiple of {parts}: the '
                f'token shift quarters the channels'
                + ('.' if num_heads is None else f' of each of {num_heads} heads.')
            )
        if wkv_rule not in WKV_RULES:
            raise self._error(
                f'wkv_rule={wkv_rule!r} must be one of {", ".join(WKV_RULES)}.'
            )
        if num_heads is not None and wkv_rule != 'formula':
            raise self._error(
                f"wkv_rule={wkv_rule!r} belongs to RWKV v4; v6 has only 'formula'."
            )

    def reset_parameters(self) -> None:
        """Initialise like the official code, as far as that is known.

        Decays, bonuses and mixing ratios have RWKV's values by channel and depth, see
        the mixers; the branches' scales have the architecture's value. Assumed:
        truncated normal (std 0.02) for pos_embed, PyTorch's default for linear
        layers, convolution and norms.
        """
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm)):
                module.reset_parameters()
        for layer in self.layers:
            layer.att.reset_mix_parameters()
            layer.ffn.reset_mix_parameters()
            if layer.init_values is not None:
                nn.init.constant_(layer.gamma1, layer.init_values)
                nn.init.constant_(layer.gamma2, layer.init_values)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps ``[B, C, H, W]`` of the blocks in ``out_indices``.

        The last block's map is normalised by ``ln1``, unless ``final_norm`` is False.

        Args:
            images: ``[B, in_channels, height, width]``, normalised.

        Raises:
            ValueError: An image side is smaller than one patch, or the shape does not
                match.
        """
        self._check_images(images)
        tokens, grid = self.patch_embed(images)
        tokens = tokens + resize_pos_embed(self.pos_embed, self.pos_embed_grid, grid)
        return self._feature_maps(tokens, grid, self.ln1)
