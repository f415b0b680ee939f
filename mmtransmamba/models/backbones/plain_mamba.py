"""PlainMamba: a non-hierarchical vision backbone of selective scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from mmtransmamba.models.backbones.arch import resolve_arch
from mmtransmamba.models.backbones.base import VisionBackbone, drop_path_rates
from mmtransmamba.models.mixers import PlainMambaMixer
from mmtransmamba.models.pos_embed import resize_pos_embed
from mmtransmamba.models.taps import LayerTap
from mmtransmamba.ops.untraced import is_recorded
from mmtransmamba.registry import MODELS

STEM_CHANNELS = 64
STEM_STRIDE = 2
NORM_EPS = 1e-6


class ConvPatchEmbed(nn.Module):
    """Image to tokens: a strided 7x7 convolution, 3x3 ones, and a projection.

    Args:
        in_channels: Channels of the image.
        embed_dims: Width of the tokens.
        patch_size: Pixels per token and axis, a multiple of 2 (the stem's stride).
        num_convs: Number of 3x3 convolutions between stem and projection.
    """

    def __init__(
        self, in_channels: int, embed_dims: int, patch_size: int, num_convs: int
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(
                in_channels, STEM_CHANNELS, 7, STEM_STRIDE, padding=3, bias=False
            ),
            nn.BatchNorm2d(STEM_CHANNELS),
            nn.ReLU(),
        )
        convs: list[nn.Module] = []
        for _ in range(num_convs):
            convs += [
                nn.Conv2d(STEM_CHANNELS, STEM_CHANNELS, 3, padding=1, bias=False),
                nn.BatchNorm2d(STEM_CHANNELS),
                nn.ReLU(),
            ]
        self.convs = nn.Sequential(*convs)
        stride = patch_size // STEM_STRIDE
        self.projection = nn.Conv2d(STEM_CHANNELS, embed_dims, stride, stride)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens ``[B, L, C]`` in raster order, and their grid."""
        if images.device.type == 'cpu' and not is_recorded():
            # Convolutions keep this layout, in which the CPU's are faster by a sixth,
            # and which is that of the tokens.
            images = images.contiguous(memory_format=torch.channels_last)
        x = self.projection(self.convs(self.stem(images)))
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])


class PlainMambaBlock(nn.Module):
    """Pre-norm residual block around the mixer.

    Args:
        embed_dims: Width C of the tokens.
        drop_path: Probability of skipping the residual branch of a sample.
        dwconv: Pass the stream, after the residual sum and without a skip, through
            a depthwise 3x3 convolution, BatchNorm and GELU (L1's first block).
        mixer: Arguments of :class:`PlainMambaMixer`.
    """

    def __init__(
        self, embed_dims: int, drop_path: float, dwconv: bool, mixer: dict[str, Any]
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dims)
        self.mamba = PlainMambaMixer(embed_dims, **mixer)
        self.drop_path = StochasticDepth(drop_path, mode='row')
        self.dw = None
        if dwconv:
            self.dw = nn.Sequential(
                nn.Conv2d(
                    embed_dims, embed_dims, 3, padding=1, groups=embed_dims, bias=False
                ),
                nn.BatchNorm2d(embed_dims),
                nn.GELU(),
            )

    def _mix(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return tokens + self.drop_path(self.mamba(self.norm(tokens), grid))

    def forward(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        run: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """Map tokens ``[B, L, C]`` of a ``grid`` to tokens of the same shape.

        Args:
            tokens: The residual stream; it keeps its dtype under autocast.
            grid: Rows and columns, ``H * W == L``.
            run: Calls the part that may be recomputed in the backward pass. ``dw`` is
                excluded: its BatchNorm would count a batch twice.
        """
        if run is None:
            tokens = self._mix(tokens, grid)
        else:
            tokens = run(self._mix, tokens, grid)
        if self.dw is not None:
            x = tokens.transpose(1, 2).unflatten(2, grid)
            tokens = self.dw(x).flatten(2).transpose(1, 2).to(tokens.dtype)
        return tokens


def _arch(
    embed_dims: int,
    depth: int,
    num_convs: int = 2,
    dwconv_layers: tuple[int, ...] = (),
    drop_path_rate: float = 0.0,
) -> dict[str, Any]:
    return dict(
        embed_dims=embed_dims,
        depth=depth,
        num_convs=num_convs,
        dwconv_layers=dwconv_layers,
        drop_path_rate=drop_path_rate,
        d_state=16,
        expand=2,
    )


@MODELS.register_module()
class PlainMamba(VisionBackbone):
    """PlainMamba (Yang et al., 2024), official parameter names, no class token.

    ``L1``, ``L2`` and ``L3`` are the official sizes; ``T``, ``S`` and ``B`` the
    twelve-layer variants of TransMamba (Table II). Official checkpoints load
    unchanged into a classifier with a ``GlobalAveragePooling`` neck and a
    ``LinearClsHead``; :func:`mmtransmamba.models.load_pretrained` loads them into
    the bare backbone. A position embedding of another grid is resampled on loading.

    Args:
        arch: A name in :attr:`ARCHS`, or a dict with its keys.
        img_size: Image size in pixels for which ``pos_embed`` is created (side, or
            height and width). Images of another size are accepted: the embedding is
            resampled.
        patch_size: Pixels per token and axis, a multiple of 2.
        in_channels: Channels of the images.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0
            in the first; the architecture's own rate by default.
        out_indices: Blocks whose feature maps are returned; negative from the end.
        permute_params: See :class:`PlainMambaMixer`.
        with_outnorms: Whether the features of every other block in ``out_indices`` have
            a norm of their own, as in the official segmentation models.
        final_norm: Whether the last block's features have the norm ``ln1``. The
            official detectors have none; their adapter's tensors are then left over.
        with_cp: Recompute the blocks in the backward pass instead of storing
            their activations.
        init_cfg: mmengine initialisation config. With ``Pretrained`` the file is
            read by :func:`mmtransmamba.models.load_pretrained`.
    """

    ARCHS = {
        'L1': _arch(192, 24, num_convs=1, dwconv_layers=(0,), drop_path_rate=0.2),
        'L2': _arch(384, 24, drop_path_rate=0.2),
        'L3': _arch(448, 36, drop_path_rate=0.4),
        'T': _arch(192, 12),
        'S': _arch(384, 12),
        'B': _arch(768, 12),
    }
    NO_DECAY = ('pos_embed', 'A_log', 'D', 'direction_Bs')
    ADAPTER = ('level_embed', 'spm.', 'interactions.', 'up.', 'ad_norm')

    def __init__(
        self,
        arch: str | dict[str, Any] = 'T',
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        out_indices: int | Sequence[int] = -1,
        permute_params: bool = False,
        with_outnorms: bool = False,
        final_norm: bool = True,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self._check_positive(patch_size=patch_size, in_channels=in_channels)
        if patch_size % STEM_STRIDE:
            raise self._error(
                f'patch_size={patch_size} must be a multiple of {STEM_STRIDE}, the '
                "patch embedding's stem stride."
            )
        settings = resolve_arch('PlainMamba', arch, self.ARCHS)
        self.embed_dims: int = settings['embed_dims']
        self.depth: int = settings['depth']
        self._check_positive(embed_dims=self.embed_dims, depth=self.depth)
        self.patch_size = patch_size
        self.with_cp = with_cp
        self.out_indices = self._resolve_indices(out_indices, self.depth)
        self.pos_embed_grid = self._grid_of(img_size, patch_size)

        self.patch_embed = ConvPatchEmbed(
            in_channels, self.embed_dims, patch_size, settings['num_convs']
        )
        num_patches = self.pos_embed_grid[0] * self.pos_embed_grid[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, num_patches, self.embed_dims))
        if drop_path_rate is None:
            drop_path_rate = settings['drop_path_rate']
        rates = drop_path_rates(drop_path_rate, self.depth)
        mixer = dict(
            d_state=settings['d_state'],
            expand=settings['expand'],
            permute_params=permute_params,
        )
        self.layers = nn.ModuleList(
            PlainMambaBlock(
                self.embed_dims, rate, i in settings['dwconv_layers'], mixer
            )
            for i, rate in enumerate(rates)
        )
        self.layer_taps = nn.ModuleList(LayerTap(self.embed_dims) for _ in rates)
        self.ln1: nn.Module = nn.Identity()
        if final_norm:
            self.ln1 = nn.LayerNorm(self.embed_dims, eps=NORM_EPS)
        else:
            self.allowed_left_over += self.ADAPTER
        if with_outnorms:
            for i in self.out_indices:
                if i != self.depth - 1:
                    norm = nn.LayerNorm(self.embed_dims, eps=NORM_EPS)
                    self.add_module(f'norm_layer{i}', norm)
            self.allowed_missing = ('norm_layer',)
        self.allowed_left_over += ('norm_layer',)
        self._register_load_state_dict_pre_hook(self._fit_pos_embed)

    def reset_parameters(self) -> None:
        """Initialise like the official code.

        Truncated normal (std 0.02) with zero bias for every linear layer, including
        dt_proj, and for pos_embed; S4D-real A; D = 1; PyTorch's default for
        convolutions.
        """
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, PlainMambaMixer):
                module.reset_ssm_parameters()

    def _run(self, block: PlainMambaBlock, *args: Any) -> Tensor:
        return block(*args, run=super()._run)

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
