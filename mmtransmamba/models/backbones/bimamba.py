"""Base of Vim and VideoMamba: a plain stack of bidirectional Mamba blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from mmtransmamba.models.backbones.arch import resolve_arch
from mmtransmamba.models.backbones.base import VisionBackbone, drop_path_rates
from mmtransmamba.models.mixers import BiMambaMixer
from mmtransmamba.models.pos_embed import resize_pos_embed
from mmtransmamba.models.taps import LayerTap

OUT_TYPES = ('cls_token', 'featmap')
NORM_EPS = 1e-5


def bimamba_arch(embed_dims: int, depth: int) -> dict[str, Any]:
    """One entry of :attr:`VisionBackbone.ARCHS`."""
    return dict(embed_dims=embed_dims, depth=depth, d_state=16, d_conv=4, expand=2)


class RMSNorm(nn.RMSNorm):
    """Root mean square norm of a float32 stream, for models of any precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(self.weight.dtype)


class PatchEmbed(nn.Module):
    """Image or video to tokens by one strided convolution.

    Args:
        in_channels: Channels of the images.
        embed_dims: Width of the tokens.
        kernel: Pixels per token along (frames,) height and width.
        stride: Pixels from token to token.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dims: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
    ) -> None:
        super().__init__()
        conv = nn.Conv2d if len(kernel) == 2 else nn.Conv3d
        self.proj = conv(in_channels, embed_dims, kernel, stride)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Tokens ``[B, L, C]`` in raster order, frame by frame, and their grid."""
        x = self.proj(images)
        return x.flatten(2).transpose(1, 2), tuple(x.shape[2:])


class BiMambaBlock(nn.Module):
    """Pre-norm residual block around the mixer.

    The official code passes hidden state and residual from block to block, and adds
    them at the start of the next block. A block's drop path, which there belongs to the
    next block's addition, therefore acts on the same mixer output as here.

    Args:
        embed_dims: Width C of the tokens.
        drop_path: Probability of skipping the residual branch of a sample.
        mixer: Arguments of :class:`BiMambaMixer`.
    """

    def __init__(
        self, embed_dims: int, drop_path: float, mixer: dict[str, Any]
    ) -> None:
        super().__init__()
        self.mixer = BiMambaMixer(embed_dims, **mixer)
        self.norm = RMSNorm(embed_dims, eps=NORM_EPS)
        self.drop_path = StochasticDepth(drop_path, mode='row')

    def forward(self, tokens: Tensor, grid: tuple[int, ...], cls_index: int) -> Tensor:
        """Map tokens ``[B, L + 1, C]`` to tokens of the same shape and dtype."""
        return tokens + self.drop_path(self.mixer(self.norm(tokens), grid, cls_index))


class BiMambaBackbone(VisionBackbone):
    """Base of :class:`Vim` and :class:`VideoMamba`.

    ``token_map`` is a module for hooks: if it has any, the patches before the last
    block pass through it as a feature map, without the class token. After that block
    only the class token is used by a head.

    Args:
        kernel: Pixels per token along (frames,) height and width.
        stride: Pixels from token to token along the same axes.
        divide_out: See :class:`BiMambaMixer`.
        arch, img_size, in_channels, drop_path_rate, out_indices, out_type, with_cp,
            init_cfg: See the subclasses.
    """

    OFFICIAL_HEADS = {'head.': 'head.fc.'}
    NO_DECAY = (
        *('pos_embed', 'temporal_pos_embedding', 'cls_token'),
        *('A_log', 'A_b_log', 'D', 'D_b'),
    )

    def __init__(
        self,
        arch: str | dict[str, Any],
        img_size: int | Sequence[int],
        in_channels: int,
        drop_path_rate: float,
        out_indices: int | Sequence[int],
        out_type: str,
        with_cp: bool,
        init_cfg: dict | list[dict] | None,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        divide_out: bool,
    ) -> None:
        super().__init__(init_cfg)
        if out_type not in OUT_TYPES:
            raise self._error(
                f'out_type={out_type!r} must be one of {", ".join(OUT_TYPES)}.'
            )
        self._check_positive(
            patch_size=kernel[-1], stride=stride[-1], in_channels=in_channels
        )
        settings = resolve_arch(type(self).__name__, arch, self.ARCHS)
        self.embed_dims: int = settings.pop('embed_dims')
        self.depth: int = settings.pop('depth')
        self._check_positive(embed_dims=self.embed_dims, depth=self.depth)
        self.patch_size = kernel[-1]
        self.out_type = out_type
        self.with_cp = with_cp
        self.out_indices = self._resolve_indices(out_indices, self.depth)
        self.patch_embed = PatchEmbed(in_channels, self.embed_dims, kernel, stride)
        self.pos_embed_grid = self._grid_of(img_size, self.patch_size, stride[-1])
        num_patches = self.pos_embed_grid[0] * self.pos_embed_grid[1]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_patches + 1, self.embed_dims))

        rates = drop_path_rates(drop_path_rate, self.depth)
        mixer = dict(settings, divide_out=divide_out)
        self.layers = nn.ModuleList(
            BiMambaBlock(self.embed_dims, rate, mixer) for rate in rates
        )
        self.layer_taps = nn.ModuleList(LayerTap(self.embed_dims) for _ in rates)
        self.token_map = nn.Identity()
        self.norm_f = RMSNorm(self.embed_dims, eps=NORM_EPS)
        self._register_load_state_dict_pre_hook(self._fit_pos_embed)

    def reset_parameters(self) -> None:
        """Initialise the parts that both families initialise in the same way.

        Truncated normal (std 0.02) for pos_embed; S4D-real A and D = 1; out_proj
        uniform as in PyTorch's default, divided by the square root of the depth.
        """
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for layer in self.layers:
            layer.mixer.reset_ssm_parameters()
            layer.mixer.out_proj.reset_parameters()
            with torch.no_grad():
                layer.mixer.out_proj.weight /= self.depth**0.5

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        """Position embedding of class token and patches, ``[1, L + 1, C]``."""
        return resize_pos_embed(self.pos_embed, self.pos_embed_grid, grid, self.cls_at)

    def _feature(
        self, tokens: Tensor, grid: tuple[int, ...], cls_index: int, normalize: bool
    ) -> Tensor:
        """The output for one of ``out_indices``, see :meth:`forward`."""
        if self.out_type == 'cls_token':
            chosen = tokens[:, cls_index]
        else:
            chosen = _patches(tokens, cls_index)
        if normalize:
            chosen = self.norm_f(chosen)
        if self.out_type == 'cls_token':
            return chosen
        return chosen.transpose(1, 2).unflatten(2, grid)

    def _through_map(self, tokens: Tensor, grid: tuple[int, ...], at: int) -> Tensor:
        """Pass the patches through ``token_map`` as a map ``[B, C, H, W]``."""
        patches = _patches(tokens, at).transpose(1, 2).unflatten(2, grid)
        patches = self.token_map(patches).flatten(2).transpose(1, 2)
        cls_token = tokens[:, at : at + 1]
        return torch.cat((patches[:, :at], cls_token, patches[:, at:]), dim=1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of the blocks in ``out_indices``, the last one's after ``norm_f``.

        Args:
            images: ``[B, in_channels, height, width]``, normalised; a video has its
                frame dimension before the height.

        Returns:
            Class tokens ``[B, C]``, or feature maps ``[B, C, H, W]`` without the
            class token; for a video ``[B, C, T, H, W]``.

        Raises:
            ValueError: An image side is smaller than one patch, or the shape does not
                match.
        """
        self._check_images(images)
        patches, grid = self.patch_embed(images)
        at = self.cls_at(patches.shape[1])
        cls_token = self.cls_token.expand(patches.shape[0], -1, -1)
        tokens = torch.cat((patches[:, :at], cls_token, patches[:, at:]), dim=1)
        tokens = tokens + self._positions(grid)
        # The residual stream stays float32 in half precision models and under autocast.
        tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        outs = {}
        for i, (layer, tap) in enumerate(
            zip(self.layers, self.layer_taps, strict=True)
        ):
            if i == self.depth - 1 and self.token_map._forward_hooks:
                tokens = self._through_map(tokens, grid, at)
            tokens = tap(self._run(layer, tokens, grid, at), grid, at)
            if i in self.out_indices:
                outs[i] = self._feature(tokens, grid, at, i == self.depth - 1)
        return tuple(outs[i] for i in self.out_indices)


def _patches(tokens: Tensor, at: int) -> Tensor:
    """The tokens except the class token at position ``at``."""
    return torch.cat((tokens[:, :at], tokens[:, at + 1 :]), dim=1)
