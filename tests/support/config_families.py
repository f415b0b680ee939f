"""Shared parts of the tests of configs: backbones by family, and optimizers."""

from mmengine.config import Config, ConfigDict

from mmtransmamba.models import VRWKV, PlainMamba, Vim, VMamba
from mmtransmamba.models.backbones.arch import resolve_arch

WIDTH = 16
GRID = 4
DEITS = {
    'deit-tiny': dict(embed_dims=192),
    'deit-small': dict(embed_dims=384),
    'deit-base': dict(embed_dims=768),
}
ARCHS = {
    'mmtransmamba.PlainMamba': PlainMamba.ARCHS,
    'mmtransmamba.Vim': Vim.ARCHS,
    'mmtransmamba.VMamba': VMamba.ARCHS,
    'mmtransmamba.VRWKV': VRWKV.ARCHS,
}
# Of the backbones that are made for images of any size.
IMAGE_SIZES = {'mmtransmamba.Digits': 8}


def arch_of(backbone: ConfigDict) -> dict:
    """The dimensions of a config's backbone."""
    if backbone.type != 'VisionTransformer':
        return resolve_arch(backbone.type, backbone.arch, ARCHS[backbone.type])
    return DEITS[backbone.arch] if isinstance(backbone.arch, str) else backbone.arch


def width_of(backbone: ConfigDict) -> int:
    """Channels that the head reads: in a model of stages those of the last."""
    arch = arch_of(backbone)
    return arch['embed_dims'] * 2 ** (len(arch.get('depths', [1])) - 1)


def image_size(backbone: ConfigDict, dataset: str) -> int:
    """Side in pixels of the images that a config's pipelines give the backbone."""
    return backbone.get('img_size', IMAGE_SIZES.get(dataset, 224))


def shrink_backbone(backbone: ConfigDict, side: int, depth: int) -> None:
    """Make it ``depth`` deep, ``WIDTH`` wide at its end, with ``GRID`` patches a side.

    Args:
        backbone: Config, changed in place.
        side: Side of its images in pixels.
        depth: Number of blocks, 2 at least.
    """
    arch = arch_of(backbone)
    if backbone.type == 'VisionTransformer':
        arch = dict(
            embed_dims=WIDTH,
            num_layers=depth,
            num_heads=2,
            feedforward_channels=2 * WIDTH,
        )
    elif 'depths' in arch:
        arch = dict(arch, embed_dims=WIDTH // 2, depths=(1, depth - 1))
    else:
        arch = dict(arch, embed_dims=WIDTH, depth=depth)
    backbone.update(arch=arch, patch_size=side // GRID, init_cfg=None)
    if 'img_size' in backbone:
        backbone.img_size = side


def optimizer_of(cfg: Config) -> tuple:
    """Type, rate, betas and decay of a config's optimizer, defaults filled in."""
    given = cfg.optim_wrapper.optimizer
    return (
        given.type,
        given.lr,
        tuple(given.get('betas', (0.9, 0.999))),
        given.get('weight_decay', 0),
    )
