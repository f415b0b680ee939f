"""VMamba: a hierarchical vision backbone of 2D selective scans."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from mmtransmamba.models.backbones.arch import resolve_arch
from mmtransmamba.models.backbones.base import VisionBackbone, drop_path_rates
from mmtransmamba.models.mixers import SS2DMixer
from mmtransmamba.models.taps import LayerTap
from mmtransmamba.registry import MODELS

VERSIONS = ('v0', 'v05_noz')
MLP_RATIO = 4

# Prefixes of old tensor names, as regular expressions, and their current names.
LEGACY_NAMES = (
    (r'patch_embed\.proj\.', 'patch_embed.0.'),
    (r'patch_embed\.norm\.', 'patch_embed.2.'),
    (r'(layers\.\d+\.blocks\.\d+)\.ln_1\.', r'\1.norm.'),
    (r'(layers\.\d+\.blocks\.\d+)\.self_attention\.', r'\1.op.'),
    (r'norm\.', 'classifier.norm.'),
)


class Permute(nn.Module):
    """A tensor with its dimensions in another order.

    Args:
        dims: See :meth:`torch.Tensor.permute`.
    """

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)

    def extra_repr(self) -> str:
        return ', '.join(map(str, self.dims))


def channels_last() -> Permute:
    """``[B, C, H, W]`` to ``[B, H, W, C]``."""
    return Permute(0, 2, 3, 1)


def channels_first() -> Permute:
    """``[B, H, W, C]`` to ``[B, C, H, W]``."""
    return Permute(0, 3, 1, 2)


def patch_embed(
    version: str, in_channels: int, embed_dims: int, patch_size: int
) -> nn.Sequential:
    """Image ``[B, in_channels, height, width]`` to tokens ``[B, H, W, C]``.

    One convolution of disjoint patches (v0), or two overlapping 3x3 ones with a norm
    and GELU between them (v05_noz). Positions in the sequence are parameter names.
    """
    if version == 'v0':
        return nn.Sequential(
            nn.Conv2d(in_channels, embed_dims, patch_size, patch_size),
            channels_last(),
            nn.LayerNorm(embed_dims),
        )
    stride = patch_size // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, embed_dims // 2, 3, 2, padding=1),
        channels_last(),
        nn.LayerNorm(embed_dims // 2),
        channels_first(),
        nn.GELU(),
        nn.Conv2d(embed_dims // 2, embed_dims, max(stride, 2) + 1, stride, padding=1),
        channels_last(),
        nn.LayerNorm(embed_dims),
    )


class PatchMerging(nn.Module):
    """Merge four neighbouring tokens into one of twice the width (v0).

    Args:
        dim: Width C of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """``[B, H, W, C]`` to ``[B, ceil(H / 2), ceil(W / 2), 2 C]``."""
        _, height, width, _ = x_BHWC.shape
        if height % 2 or width % 2:
            x_BHWC = F.pad(x_BHWC, (0, 0, 0, width % 2, 0, height % 2))
        pairs = x_BHWC.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        # Order: upper left, lower left, upper right, lower right.
        merged = pairs.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(merged))


def downsample(version: str, dim: int) -> nn.Module:
    """Tokens ``[B, H, W, C]`` to a quarter as many of twice the width."""
    if version == 'v0':
        return PatchMerging(dim)
    return nn.Sequential(
        channels_first(),
        nn.Conv2d(dim, 2 * dim, 3, 2, padding=1),
        channels_last(),
        nn.LayerNorm(2 * dim),
    )


class Mlp(nn.Module):
    """Two linear layers with a GELU between them.

    Args:
        dim: Width C of the tokens.
        hidden_dim: Width between the layers.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class VSSBlock(nn.Module):
    """Pre-norm residual block around the mixer, and in v05_noz one around an MLP.

    The official v05_noz keeps its maps channels first. A norm over channels and a
    1x1 convolution compute the same on channels-last tokens, which the scan and the
    linear layers read and write without a transposed copy.

    Args:
        dim: Width C of the tokens.
        version: ``'v0'`` or ``'v05_noz'``.
        drop_path: Probability of skipping a residual branch of a sample.
        d_state: State size of the scan.
        ssm_ratio: Inner width of the mixer as a multiple of ``dim``.
    """

    def __init__(
        self, dim: int, version: str, drop_path: float, d_state: int, ssm_ratio: float
    ) -> None:
        super().__init__()
        v0 = version == 'v0'
        self.norm = nn.LayerNorm(dim)
        self.op = SS2DMixer(dim, d_state, ssm_ratio, gate=v0, conv_bias=v0)
        self.drop_path = StochasticDepth(drop_path, mode='row')
        self.mlp = None
        if not v0:
            self.norm2 = nn.LayerNorm(dim)
            self.mlp = Mlp(dim, MLP_RATIO * dim)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens ``[B, L, C]`` of a ``grid`` to tokens of the same shape."""
        tokens = tokens + self.drop_path(self.op(self.norm(tokens), grid))
        if self.mlp is not None:
            tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return tokens


class VSSStage(nn.Module):
    """Blocks of one width, and the downsampling to the next stage.

    Args:
        blocks: The stage's blocks.
        downsample: See :func:`downsample`; None in the last stage.
    """

    def __init__(
        self, blocks: Sequence[VSSBlock], downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


def _arch(
    embed_dims: int,
    third_depth: int,
    drop_path_rate: float,
    version: str = 'v05_noz',
    ssm_ratio: float = 1.0,
) -> dict[str, Any]:
    return dict(
        embed_dims=embed_dims,
        depths=(2, 2, third_depth, 2),
        drop_path_rate=drop_path_rate,
        version=version,
        ssm_ratio=ssm_ratio,
        d_state=16 if version == 'v0' else 1,
    )


@MODELS.register_module()
class VMamba(VisionBackbone):
    """VMamba (Liu et al., 2024), official parameter names, four stages.

    ``vanilla_*`` are the official v0 models (gated, without MLP), ``*_s2l*`` and
    ``*_s1l*`` the later v05_noz ones (no gate, an MLP, overlapping patches, one
    state). There is no position embedding: images of any size are accepted.

    For classification the last stage's map is normalised by ``classifier.norm``, and
    official checkpoints load unchanged into a classifier with a
    ``GlobalAveragePooling`` neck and a ``LinearClsHead``. For dense tasks
    (``with_outnorms``) every returned map has a separate norm, ``outnorm0`` to
    ``outnorm3``, and there is no ``classifier``; a classification checkpoint then
    loads without these norms. :func:`mmtransmamba.models.load_pretrained` loads
    checkpoints into the bare backbone. Names of older releases are translated, and
    1x1 convolutions are converted to linear layers.

    Args:
        arch: A name in :attr:`ARCHS`, or a dict with its keys; the width doubles
            from stage to stage, ``depths`` has one entry per stage.
        patch_size: Pixels per token of the first stage and axis; even in v05_noz.
        in_channels: Channels of the images.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0
            in the first; the architecture's own rate by default.
        out_indices: Stages whose feature maps are returned, taken before their
            downsampling; negative from the end.
        with_outnorms: Add a separate norm for each returned map, for dense tasks.
        with_cp: Recompute the blocks in the backward pass instead of storing
            their activations.
        init_cfg: mmengine initialisation config. With ``Pretrained`` the file is
            read by :func:`mmtransmamba.models.load_pretrained`.
    """

    ARCHS = {
        'vanilla_tiny': _arch(96, 9, 0.2, 'v0', 2.0),
        'vanilla_small': _arch(96, 27, 0.3, 'v0', 2.0),
        'vanilla_base': _arch(128, 27, 0.6, 'v0', 2.0),
        'tiny_s2l5': _arch(96, 5, 0.2, ssm_ratio=2.0),
        'small_s2l15': _arch(96, 15, 0.3, ssm_ratio=2.0),
        'base_s2l15': _arch(128, 15, 0.6, ssm_ratio=2.0),
        'tiny_s1l8': _arch(96, 8, 0.2),
        'small_s1l20': _arch(96, 20, 0.3),
        'base_s1l20': _arch(128, 20, 0.5),
    }
    OFFICIAL_HEADS = {'classifier.head.': 'head.fc.', 'head.': 'head.fc.'}
    NO_DECAY = ('A_logs', 'Ds')

    def __init__(
        self,
        arch: str | dict[str, Any] = 'vanilla_tiny',
        patch_size: int = 4,
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        out_indices: int | Sequence[int] = -1,
        with_outnorms: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self._check_positive(patch_size=patch_size, in_channels=in_channels)
        settings = resolve_arch('VMamba', arch, self.ARCHS)
        version = settings['version']
        if version not in VERSIONS:
            raise self._error(
                f'version={version!r} must be one of {", ".join(VERSIONS)}.'
            )
        self._check_positive(embed_dims=settings['embed_dims'])
        if version == 'v05_noz' and patch_size % 2:
            raise self._error(
                f'patch_size={patch_size} must be even in v05_noz, whose patch '
                'embedding halves the image first.'
            )
        self.depths: tuple[int, ...] = tuple(settings['depths'])
        if not self.depths or min(self.depths) < 1:
            raise self._error(
                f'depths={self.depths} must give each stage at least one block.'
            )
        self.dims = tuple(
            settings['embed_dims'] * 2**i for i in range(len(self.depths))
        )
        self.depth = sum(self.depths)
        self.patch_size = patch_size
        self.with_cp = with_cp
        self.with_outnorms = with_outnorms
        self.out_indices = self._resolve_indices(
            out_indices, len(self.depths), 'stages'
        )

        self.patch_embed = patch_embed(version, in_channels, self.dims[0], patch_size)
        if drop_path_rate is None:
            drop_path_rate = settings['drop_path_rate']
        rates = iter(drop_path_rates(drop_path_rate, self.depth))
        block = dict(
            version=version,
            d_state=settings['d_state'],
            ssm_ratio=settings['ssm_ratio'],
        )
        last = len(self.dims) - 1
        self.layers = nn.ModuleList(
            VSSStage(
                [VSSBlock(dim, drop_path=next(rates), **block) for _ in range(depth)],
                None if i == last else downsample(version, dim),
            )
            for i, (dim, depth) in enumerate(zip(self.dims, self.depths, strict=True))
        )
        self.layer_taps = nn.ModuleList(
            LayerTap(dim)
            for dim, depth in zip(self.dims, self.depths, strict=True)
            for _ in range(depth)
        )
        if with_outnorms:
            for i in self.out_indices:
                self.add_module(f'outnorm{i}', nn.LayerNorm(self.dims[i]))
            self.allowed_missing = ('outnorm',)
            self.allowed_left_over += ('classifier.', 'outnorm')
        else:
            self.classifier = nn.ModuleDict({'norm': nn.LayerNorm(self.dims[-1])})
            self.allowed_left_over += ('classifier.head.', 'outnorm')
        self._register_load_state_dict_pre_hook(self._translate_legacy)

    def _translate_legacy(self, state_dict: dict[str, Tensor], prefix: str, *_) -> None:
        """Convert a checkpoint of an older release to the current names and shapes."""
        own = self.state_dict()
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key[len(prefix) :]
            for old, new in LEGACY_NAMES:
                name = re.sub(f'^{old}', new, name)
            value = state_dict.pop(key)
            shape = own[name].shape if name in own else value.shape
            if value.shape == (*shape, 1, 1):  # a 1x1 convolution
                value = value.reshape(shape)
            state_dict[prefix + name] = value

    def reset_parameters(self) -> None:
        """Initialise like the official code.

        Truncated normal (std 0.02) with zero bias for every linear layer, the
        identity for norms, PyTorch's default for convolutions; for the mixers' raw
        parameters see :meth:`SS2DMixer.reset_ssm_parameters`.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm | nn.Conv2d):
                module.reset_parameters()
            elif isinstance(module, SS2DMixer):
                module.reset_ssm_parameters()

    def _layer_number(self, name: str) -> int | None:
        parts = name.split('.')
        if parts[0] == 'patch_embed':
            return -1
        if parts[0] != 'layers':
            return None
        # A stage's downsampling belongs to its last block.
        stage = int(parts[1])
        ends = list(accumulate(self.depths))
        if parts[2] != 'blocks':
            return ends[stage] - 1
        return ends[stage] - self.depths[stage] + int(parts[3])

    def _normalize(self, tokens: Tensor, stage: int) -> Tensor:
        """Tokens of a stage in the layout of its feature map."""
        if self.with_outnorms:
            return getattr(self, f'outnorm{stage}')(tokens)
        if stage == len(self.dims) - 1:
            return self.classifier['norm'](tokens)
        return tokens

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps ``[B, C, H, W]`` of the stages in ``out_indices``.

        Args:
            images: ``[B, in_channels, height, width]``, normalised.

        Raises:
            ValueError: An image side is smaller than one patch, or the shape does not
                match.
        """
        self._check_images(images)
        taps = iter(self.layer_taps)
        maps = {}
        x_BHWC = self.patch_embed(images)
        for i, stage in enumerate(self.layers):
            grid = (x_BHWC.shape[1], x_BHWC.shape[2])
            # Under autocast, the stage would otherwise receive a half precision stream.
            tokens = x_BHWC.flatten(1, 2).to(images.dtype)
            for block in stage.blocks:
                tokens = next(taps)(self._run(block, tokens, grid), grid)
            if i in self.out_indices:
                out = self._normalize(tokens, i)
                maps[i] = out.transpose(1, 2).unflatten(2, grid)
            if stage.downsample is not None:
                x_BHWC = stage.downsample(tokens.unflatten(1, grid))
        return tuple(maps[i] for i in self.out_indices)
