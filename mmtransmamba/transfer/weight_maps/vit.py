"""Rules shared by the maps from a ViT (canonical names)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmtransmamba.models.teachers.vit_names import to_canonical, without_layer_scales
from mmtransmamba.transfer.weight_maps.base import EXACT, Rule, Space

HEAD = (
    Rule(
        'head.fc.weight',
        'head.weight',
        (EXACT, 'residual'),
        optional=True,
        fan_in=1,
    ),
    Rule(
        'head.fc.bias',
        'head.bias',
        (EXACT,),
        optional=True,
        follows='head.fc.weight',
    ),
)
POS_EMBED = Rule(
    'pos_embed', 'pos_embed', (EXACT, EXACT, 'residual'), method='pos_embed'
)


def from_vit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A plain ViT's weights under canonical names, without layer scales.

    A student has none, so the branches keep their size with the scales in the weights.
    """
    return without_layer_scales(to_canonical(state))


def residual(target: str) -> Space:
    """The residual stream, whose channels are also those of the tensor ``target``."""
    return Space(
        'residual',
        source=(
            ('norm.weight', 0),
            ('pos_embed', 2),
            ('cls_token', 2),
            ('patch_embed.proj.weight', 0),
            ('blocks.{i}.norm1.weight', 0),
            ('blocks.{i}.attn.qkv.weight', 1),
            ('blocks.{i}.attn.proj.weight', 0),
            ('blocks.{i}.norm2.weight', 0),
            ('blocks.{i}.mlp.fc1.weight', 1),
            ('blocks.{i}.mlp.fc2.weight', 0),
            ('head.weight', 1),
        ),
        target=(target, 0),
    )


def heads(target: str) -> Space:
    """The concatenated heads, which the attention's output projection reads.

    The inner channels of the student's mixer replace them, and there may be more of
    them; the mixer's output projection ``target`` reads them.
    """
    return Space(
        'heads',
        source=(('blocks.{i}.attn.proj.weight', 1),),
        target=(target, 1),
        per_layer=True,
    )


def hidden(target: str) -> Space:
    """The hidden channels of the feed-forward layers; ``target`` computes them."""
    return Space(
        'hidden',
        source=(('blocks.{i}.mlp.fc1.weight', 0), ('blocks.{i}.mlp.fc2.weight', 1)),
        target=(target, 0),
        per_layer=True,
    )


def patch_embed(target: str, method: str = 'width') -> tuple[Rule, Rule]:
    """Weight and bias of the patch embedding ``target``.

    A stem of several convolutions has no counterpart in a ViT: only a student whose
    projection reads the image itself, in patches of the same size, copies these two.
    """
    return (
        Rule(
            f'{target}.weight',
            'patch_embed.proj.weight',
            ('residual', EXACT, EXACT, EXACT),
            method=method,
            optional=True,
        ),
        Rule(
            f'{target}.bias',
            'patch_embed.proj.bias',
            ('residual',),
            follows=f'{target}.weight',
        ),
    )
