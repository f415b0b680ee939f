"""The names of a plain ViT's weights in different libraries.

The canonical names are timm's. Each table maps a canonical name to the names that a
library uses for it, or has used; ``{i}`` is the block's number. A name may stand for
one tensor or, without its last part, for all tensors of a module (``.weight`` and
``.bias`` are then kept). Three names in a tuple are the parts that form the canonical
tensor when stacked along dim 0 (a split q, k, v).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

Alias = str | tuple[str, str, str]

TIMM: dict[str, tuple[Alias, ...]] = {
    'cls_token': ('cls_token',),
    'dist_token': ('dist_token',),
    'reg_token': ('reg_token',),
    'pos_embed': ('pos_embed',),
    'patch_embed.proj': ('patch_embed.proj',),
    'norm_pre': ('norm_pre',),
    'blocks.{i}.norm1': ('blocks.{i}.norm1',),
    'blocks.{i}.attn.qkv': ('blocks.{i}.attn.qkv',),
    'blocks.{i}.attn.proj': ('blocks.{i}.attn.proj',),
    'blocks.{i}.ls1.gamma': ('blocks.{i}.ls1.gamma',),
    'blocks.{i}.norm2': ('blocks.{i}.norm2',),
    'blocks.{i}.mlp.fc1': ('blocks.{i}.mlp.fc1',),
    'blocks.{i}.mlp.fc2': ('blocks.{i}.mlp.fc2',),
    'blocks.{i}.ls2.gamma': ('blocks.{i}.ls2.gamma',),
    'norm': ('norm',),
    'fc_norm': ('fc_norm',),
    'head': ('head',),
    'head_dist': ('head_dist',),
}

MMPRETRAIN: dict[str, tuple[Alias, ...]] = {
    'cls_token': ('cls_token',),
    'dist_token': ('dist_token',),
    'pos_embed': ('pos_embed',),
    'patch_embed.proj': ('patch_embed.projection',),
    'norm_pre': ('pre_norm',),
    'blocks.{i}.norm1': ('layers.{i}.ln1',),
    'blocks.{i}.attn.qkv': ('layers.{i}.attn.qkv',),
    'blocks.{i}.attn.proj': ('layers.{i}.attn.proj',),
    'blocks.{i}.ls1.gamma': ('layers.{i}.attn.gamma1.weight',),
    'blocks.{i}.norm2': ('layers.{i}.ln2',),
    'blocks.{i}.mlp.fc1': ('layers.{i}.ffn.layers.0.0',),
    'blocks.{i}.mlp.fc2': ('layers.{i}.ffn.layers.1',),
    'blocks.{i}.ls2.gamma': ('layers.{i}.ffn.gamma2.weight',),
    'norm': ('ln1',),
    'fc_norm': ('ln2',),
    'head': ('head.layers.head', 'head.fc'),
    'head_dist': ('head.layers.head_dist',),
}

# Each entry lists the names of ViT and DeiT in memory in newer versions, those in files
# on the hub (and in memory in older versions), and those of DINOv2 and CLIP.
TRANSFORMERS: dict[str, tuple[Alias, ...]] = {
    'cls_token': ('embeddings.cls_token', 'embeddings.class_embedding'),
    'dist_token': ('embeddings.distillation_token',),
    'reg_token': ('embeddings.register_tokens',),
    'pos_embed': (
        'embeddings.position_embeddings',
        'embeddings.position_embedding.weight',
    ),
    'patch_embed.proj': (
        'embeddings.patch_embeddings.projection',
        'embeddings.patch_embedding',
    ),
    'norm_pre': ('pre_layrnorm',),
    'blocks.{i}.norm1': (
        'layers.{i}.layernorm_before',
        'encoder.layer.{i}.layernorm_before',
        'encoder.layer.{i}.norm1',
        'encoder.layers.{i}.layer_norm1',
    ),
    'blocks.{i}.attn.qkv': (
        tuple(f'layers.{{i}}.attention.{p}_proj' for p in 'qkv'),
        tuple(
            f'encoder.layer.{{i}}.attention.attention.{p}'
            for p in ('query', 'key', 'value')
        ),
        tuple(f'encoder.layer.{{i}}.attention.{p}_proj' for p in 'qkv'),
        tuple(f'encoder.layers.{{i}}.self_attn.{p}_proj' for p in 'qkv'),
    ),
    'blocks.{i}.attn.proj': (
        'layers.{i}.attention.o_proj',
        'encoder.layer.{i}.attention.output.dense',
        'encoder.layer.{i}.attention.o_proj',
        'encoder.layers.{i}.self_attn.out_proj',
    ),
    'blocks.{i}.ls1.gamma': ('encoder.layer.{i}.layer_scale1.lambda1',),
    'blocks.{i}.norm2': (
        'layers.{i}.layernorm_after',
        'encoder.layer.{i}.layernorm_after',
        'encoder.layer.{i}.norm2',
        'encoder.layers.{i}.layer_norm2',
    ),
    'blocks.{i}.mlp.fc1': (
        'layers.{i}.mlp.fc1',
        'encoder.layer.{i}.intermediate.dense',
        'encoder.layer.{i}.mlp.fc1',
        'encoder.layers.{i}.mlp.fc1',
    ),
    'blocks.{i}.mlp.fc2': (
        'layers.{i}.mlp.fc2',
        'encoder.layer.{i}.output.dense',
        'encoder.layer.{i}.mlp.fc2',
        'encoder.layers.{i}.mlp.fc2',
    ),
    'blocks.{i}.ls2.gamma': ('encoder.layer.{i}.layer_scale2.lambda1',),
    'norm': ('layernorm', 'post_layernorm'),
    'head': ('classifier', 'cls_classifier'),
    'head_dist': ('distillation_classifier',),
}

TABLES = {'timm': TIMM, 'mmpretrain': MMPRETRAIN, 'transformers': TRANSFORMERS}

_WRAPPER = re.compile(
    r'^(?:(?:module|backbone|vit|deit|dinov2(?:_with_registers)?|vision_model)\.)+'
)
# Not used when a plain ViT classifier computes its logits.
_IGNORED = re.compile(
    r'(?:^|\.)(?:pooler\..*|mask_token|position_ids|text_model\..*|'
    r'(?:visual|text)_projection\.weight|logit_scale|data_preprocessor\..*)$'
)
_LEAF = r'(?P<leaf>(?:\.weight|\.bias)?)'


_SCALED = {'ls1': 'attn.proj', 'ls2': 'mlp.fc2'}
"""Layer scales, and the linear layers in front of them."""
_LAYER_SCALE = re.compile(r'(blocks\.\d+)\.(ls[12])\.gamma')


@lru_cache
def _patterns(library: str) -> list[tuple[re.Pattern, str, int | None]]:
    """Name pattern, canonical template and part number for each alias."""
    patterns = []
    for canonical, aliases in TABLES[library].items():
        for alias in aliases:
            parts = alias if isinstance(alias, tuple) else (alias,)
            for number, part in enumerate(parts):
                regex = re.escape(part).replace(r'\{i\}', r'(?P<i>\d+)')
                patterns.append(
                    (
                        re.compile(f'{regex}{_LEAF}'),
                        canonical,
                        number if len(parts) > 1 else None,
                    )
                )
    return patterns


def _match(library: str, key: str) -> tuple[str, int | None] | None:
    key = _WRAPPER.sub('', key)
    for pattern, canonical, part in _patterns(library):
        found = pattern.fullmatch(key)
        if found:
            groups = found.groupdict()
            name = canonical.replace('{i}', groups.get('i') or '')
            return name + groups['leaf'], part
    return None


def canonical_names(keys: Iterable[str]) -> dict[str, tuple[str, int | None]]:
    """Canonical name, and number of the part if split, for the names of a ViT.

    Args:
        keys: Names of one model of timm, mmpretrain or transformers.

    Raises:
        ValueError: The names do not all belong to a plain ViT of one library.
    """
    keys = [key for key in keys if not _IGNORED.search(key)]
    matches = {
        library: {key: found for key in keys if (found := _match(library, key))}
        for library in TABLES
    }
    library = max(matches, key=lambda name: len(matches[name]))
    unknown = [key for key in keys if key not in matches[library]]
    if unknown or not keys:
        raise ValueError(
            'These are not the weights of a plain ViT of timm, mmpretrain or '
            f'transformers: {len(unknown)} of {len(keys)} names are unknown, such as '
            f'{unknown[:3]}.'
        )
    return matches[library]


def to_canonical(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A plain ViT's weights under timm's names.

    Args:
        state: Weights under the names of timm, mmpretrain or transformers.

    Returns:
        New dict; tensors that need no change are the same objects. ``cls_token`` is
        ``[1, 1, C]`` and ``pos_embed`` ``[1, L, C]``.

    Raises:
        ValueError: See :func:`canonical_names`, or a part of q, k, v is missing.
    """
    collected: dict[str, dict[int | None, Tensor]] = {}
    for key, (name, part) in canonical_names(state).items():
        collected.setdefault(name, {})[part] = state[key]
    canonical = {}
    for name, parts in collected.items():
        if None in parts:
            canonical[name] = parts[None]
        elif len(parts) == 3:
            canonical[name] = torch.cat([parts[i] for i in range(3)])
        else:
            raise ValueError(f'{name} has only {len(parts)} of its 3 parts q, k, v.')
        if name in ('cls_token', 'pos_embed') and canonical[name].ndim < 3:
            tensor = canonical[name]
            canonical[name] = tensor.reshape(1, -1, tensor.shape[-1])
    return canonical


def without_layer_scales(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Canonical weights whose layer scales are multiplied into the layers before them.

    The model with these weights has the same outputs without the scales.
    """
    weights = dict(weights)
    for name in [name for name in weights if _LAYER_SCALE.fullmatch(name)]:
        layer, scale = _LAYER_SCALE.fullmatch(name).groups()
        gamma, linear = weights.pop(name), f'{layer}.{_SCALED[scale]}'
        weight = weights[f'{linear}.weight']
        weights[f'{linear}.weight'] = weight * gamma[:, None]
        if f'{linear}.bias' in weights:
            weights[f'{linear}.bias'] = weights[f'{linear}.bias'] * gamma
    return weights


def from_canonical(
    canonical: Mapping[str, Tensor], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A plain ViT's weights under the names of another library.

    Args:
        canonical: Weights under timm's names.
        like: State dict of the target model, which defines names and shapes.

    Returns:
        The tensors of ``canonical`` under the names of ``like``, followed by those that
        have no counterpart in ``like``.

    Raises:
        ValueError: ``like`` is not a plain ViT.
    """
    state = {}
    used = set()
    for key, (name, part) in canonical_names(like).items():
        if name not in canonical:
            continue
        used.add(name)
        tensor = canonical[name]
        if part is not None:
            tensor = tensor.chunk(3)[part]
        if tensor.numel() == like[key].numel():
            tensor = tensor.reshape(like[key].shape)
        state[key] = tensor
    state.update({name: t for name, t in canonical.items() if name not in used})
    return state
