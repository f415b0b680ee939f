"""ViTs of timm and mmpretrain as models of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ViTConfig,
    ViTForImageClassification,
)

from mmtransmamba.models.teachers import BaseTeacher
from mmtransmamba.models.teachers.vit_names import (
    from_canonical,
    to_canonical,
    without_layer_scales,
)
from mmtransmamba.utils.evaluation_mode import evaluating

ACCEPTED = {
    'timm': ('VisionTransformer', 'VisionTransformerDistilled'),
    # Its DeiT3 applies the first norm of a block twice and never the second.
    'mmpretrain': ('VisionTransformer', 'DistilledVisionTransformer'),
}
"""Classes of a library's backbones that are plain ViTs."""

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""Largest difference of the outputs, relative to the largest output; for other dtypes
it is :data:`HALF_TOLERANCE`."""

HALF_TOLERANCE = 5e-2

_ACTIVATIONS = {
    'QuickGELU': 'quick_gelu',
    'GELUTanh': 'gelu_pytorch_tanh',
    'ReLU': 'relu',
    'SiLU': 'silu',
}


def as_transformers(model: Any) -> Any:
    """A classifier of timm or mmpretrain as the same model of transformers.

    It must be a plain ViT or DeiT: class token, learned positions, pre-norm blocks, and
    a linear classifier of the class token, with a distillation token of the average of
    two. Scales of layers, as in timm's DeiT III, become part of the linear layers in
    front of them. Dropout and stochastic depth are left out.

    Args:
        model: The model, in memory, or a teacher with one. Everything else is returned
            as it is.

    Returns:
        A ``ViTForImageClassification`` or ``DeiTForImageClassificationWithTeacher`` on
        the model's device, with its dtype, whose outputs were compared with the
        model's.

    Raises:
        ValueError: The model is not a plain ViT; the message names what is different.
    """
    if isinstance(model, BaseTeacher):
        model = model.model
    library = _library_of(model) if isinstance(model, nn.Module) else None
    if library is None:
        return model
    parts = _PARTS[library](model)
    with torch.no_grad():
        converted = _build(parts, to_canonical(model.state_dict()))
        _compare(model, converted, parts)
    return converted.train(model.training)


@dataclass(frozen=True)
class _Parts:
    """What the weights of a ViT do not show.

    Attributes:
        name: Name of the model, for messages.
        patches: The convolution that makes patches.
        blocks: The blocks.
        activation: That of the first block.
        norms: Every LayerNorm.
        image_size: Height and width.
        pooled: How the feature for the classifier is obtained; ``'class token'`` is
            accepted.
        logits: Function that computes the logits of images.
    """

    name: str
    patches: nn.Conv2d
    blocks: Iterable[nn.Module]
    activation: nn.Module
    norms: list[nn.LayerNorm]
    image_size: tuple[int, int]
    pooled: str
    logits: Callable[[Tensor], Tensor]

    def refuse(self, reason: str) -> ValueError:
        return ValueError(
            f'The teacher is a {self.name} {reason}; accepted are plain ViT and DeiT '
            'classifiers: class token, learned positions, LayerNorm before each part '
            'of a block, and a linear classifier of the class token.'
        )


def _library_of(model: nn.Module) -> str | None:
    """The library of a model, None for another one.

    Raises:
        ValueError: It is another model of these libraries.
    """
    library = type(model).__module__.partition('.')[0]
    if library not in ACCEPTED:
        return None
    backbone = getattr(model, 'backbone', None) if library == 'mmpretrain' else model
    given = type(model).__name__
    if library == 'mmpretrain':
        if backbone is None or getattr(model, 'neck', None) is not None:
            found = 'without a head' if backbone is None else 'with a neck'
            raise ValueError(
                f'The teacher is a {given} of mmpretrain {found}; accepted is an '
                'ImageClassifier of a backbone and a head.'
            )
        given = f'{given} around a {type(backbone).__name__}'
    known = type(backbone).__module__.startswith(f'{library}.')
    if not known or type(backbone).__name__ not in ACCEPTED[library]:
        raise ValueError(
            f'The teacher is a {given} of {library}; accepted are '
            f'{", ".join(ACCEPTED[library])}.'
        )
    return library


def _norms(model: nn.Module) -> list[nn.LayerNorm]:
    return [m for m in model.modules() if isinstance(m, nn.LayerNorm)]


def _timm(model: nn.Module) -> _Parts:
    size = model.patch_embed.img_size
    pool = {'token': 'class token'}.get(model.global_pool, model.global_pool)
    return _Parts(
        name=f'{type(model).__name__} of timm',
        patches=model.patch_embed.proj,
        blocks=model.blocks,
        activation=getattr(model.blocks[0].mlp, 'act', nn.Identity()),
        norms=_norms(model),
        image_size=tuple(size),
        pooled=pool,
        logits=model,
    )


def _mmpretrain(model: nn.Module) -> _Parts:
    backbone = model.backbone
    out = {'cls_token': 'class token'}.get(backbone.out_type, backbone.out_type)
    layers = getattr(backbone.layers[0].ffn, 'layers', None)
    return _Parts(
        name=f'{type(backbone).__name__} of mmpretrain',
        patches=backbone.patch_embed.projection,
        blocks=backbone.layers,
        activation=nn.Identity() if layers is None else layers[0][1],
        norms=_norms(backbone),
        image_size=tuple(backbone.img_size),
        pooled=out,
        logits=lambda images: model(images, mode='tensor'),
    )


_PARTS = {'timm': _timm, 'mmpretrain': _mmpretrain}


def _one(parts: _Parts, what: str, values: Iterable[Any]) -> Any:
    """The value that all layers have in common."""
    found = sorted(set(values))
    if len(found) != 1:
        raise parts.refuse(f'with {what} of {" and ".join(map(str, found))}')
    return found[0]


def _activation(parts: _Parts) -> str:
    name = type(parts.activation).__name__
    if name == 'GELU' and getattr(parts.activation, 'approximate', 'none') == 'none':
        return 'gelu'
    if name == 'GELU':
        name = 'GELUTanh'
    if name not in _ACTIVATIONS:
        raise parts.refuse(f'whose feed-forward layers have no {name} that is known')
    return _ACTIVATIONS[name]


def _build(parts: _Parts, weights: dict[str, Tensor]) -> nn.Module:
    """The model of transformers.

    Args:
        parts: Parts of the original.
        weights: Its weights under canonical names.
    """
    if parts.pooled != 'class token':
        raise parts.refuse(f"that classifies from '{parts.pooled}'")
    for name in ('cls_token', 'pos_embed', 'head.weight', 'norm.weight'):
        if name not in weights:
            raise parts.refuse(f'without {name}')
    patches, depth = parts.patches, len(list(parts.blocks))
    heads = _one(parts, 'heads', (b.attn.num_heads for b in parts.blocks))
    sides = (parts.image_size, patches.kernel_size, patches.stride, patches.padding)
    if any(height != width for height, width in sides):
        raise parts.refuse('whose images or patches are not square')
    if patches.stride != patches.kernel_size or patches.padding != (0, 0):
        raise parts.refuse('whose patches overlap or are padded')
    distilled = 'dist_token' in weights
    config_class, model_class = ViTConfig, ViTForImageClassification
    if distilled:
        config_class, model_class = DeiTConfig, DeiTForImageClassificationWithTeacher
    config = config_class(
        hidden_size=patches.out_channels,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=len(weights['blocks.0.mlp.fc1.weight']),
        hidden_act=_activation(parts),
        layer_norm_eps=_one(parts, 'epsilons', (norm.eps for norm in parts.norms)),
        image_size=parts.image_size[0],
        patch_size=patches.kernel_size[0],
        num_channels=patches.in_channels,
        qkv_bias='blocks.0.attn.qkv.bias' in weights,
        num_labels=len(weights['head.weight']),
        architectures=[model_class.__name__],
    )
    # Without drawing weights that are replaced.
    with torch.device('meta'):
        model = model_class(config)
    weights = _with_prefix_positions(without_layer_scales(weights), distilled)
    like = model.state_dict()
    state = from_canonical(weights, like)
    without_place = sorted(state.keys() - like.keys())
    if without_place:
        raise parts.refuse(f'with {", ".join(without_place[:3])}')
    missing = sorted(like.keys() - state.keys())
    if missing:
        raise parts.refuse(f'without the weights for {", ".join(missing[:3])}')
    for name, tensor in state.items():
        if tensor.shape != like[name].shape:
            raise parts.refuse(
                f'whose {name} is {list(tensor.shape)}, not {list(like[name].shape)}'
            )
    state = {name: tensor.detach().clone() for name, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    return model


def _with_prefix_positions(
    weights: dict[str, Tensor], distilled: bool
) -> dict[str, Tensor]:
    """Weights with positions for all tokens: zeros for those that have none."""
    positions, prefix = weights['pos_embed'], 1 + distilled
    patches = round(positions.shape[1] ** 0.5)
    if patches**2 != positions.shape[1]:
        return weights
    zeros = positions.new_zeros(1, prefix, positions.shape[2])
    return weights | {'pos_embed': torch.cat((zeros, positions), dim=1)}


def _compare(model: nn.Module, converted: nn.Module, parts: _Parts) -> None:
    """Compare both models on an image.

    Raises:
        ValueError: They differ.
    """
    weight = parts.patches.weight
    generator = torch.Generator().manual_seed(0)
    shape = (1, parts.patches.in_channels, *parts.image_size)
    image = torch.randn(shape, generator=generator).to(weight)
    with evaluating(model):
        expected = parts.logits(image).double()
    found = converted.eval()(image).logits.double()
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= TOLERANCE.get(weight.dtype, HALF_TOLERANCE):
        raise parts.refuse(
            f'that computes something else than a plain ViT with its weights (relative '
            f'difference {difference:.1g})'
        )
