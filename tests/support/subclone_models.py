"""Small students and teachers, as state dicts, for tests of weight inheritance."""

import timm
import torch
from torch import Tensor, nn

from mmtransmamba.models import PlainMamba


def distinct(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """The model's parameters, all of them random, none equal to another."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator)
        for name, p in model.named_parameters()
    }


def student(
    dim: int = 16,
    depth: int = 3,
    grid: int | tuple[int, int] = 2,
    classes: int | None = 5,
    expand: float = 2,
    d_state: int = 4,
    num_convs: int = 0,
) -> nn.Module:
    """A PlainMamba; with ``classes`` the backbone and head of a classifier."""
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    backbone = PlainMamba(
        dict(
            embed_dims=dim,
            depth=depth,
            num_convs=num_convs,
            dwconv_layers=(),
            drop_path_rate=0.0,
            d_state=d_state,
            expand=expand,
        ),
        img_size=(8 * rows, 8 * columns),
        patch_size=8,
    )
    return backbone if classes is None else with_head(backbone, dim, classes)


def with_head(backbone: nn.Module, dim: int, classes: int = 5) -> nn.Module:
    """The parameters of a classifier, under the names of mmpretrain's."""
    model = nn.Module()
    model.backbone = backbone
    model.head = nn.Module()
    model.head.fc = nn.Linear(dim, classes)
    return model


def vit_state(
    dim: int = 16,
    depth: int = 3,
    grid: int | tuple[int, int] = 2,
    classes: int = 5,
    distilled: bool = False,
) -> dict[str, Tensor]:
    """A ViT's or distilled DeiT's random weights under canonical names."""
    return distinct(vit(dim, depth, grid, classes, distilled), seed=1)


def vit(
    dim: int = 16,
    depth: int = 3,
    grid: int | tuple[int, int] = 2,
    classes: int = 5,
    distilled: bool = False,
) -> nn.Module:
    """A ViT or distilled DeiT of timm, with patches of 8 pixels."""
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    name = 'deit_tiny_distilled_patch16_224' if distilled else 'vit_tiny_patch16_224'
    return timm.create_model(
        name,
        img_size=(8 * rows, 8 * columns),
        patch_size=8,
        embed_dim=dim,
        depth=depth,
        num_heads=2,
        num_classes=classes,
    )
