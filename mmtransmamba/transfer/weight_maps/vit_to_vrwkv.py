"""ViT and DeiT (canonical names) to Vision-RWKV, versions 4 and 6."""

from mmtransmamba.registry import WEIGHT_MAPS
from mmtransmamba.transfer.weight_maps.base import Fresh, Rule, WeightMap
from mmtransmamba.transfer.weight_maps.vit import (
    HEAD,
    POS_EMBED,
    from_vit,
    heads,
    hidden,
    patch_embed,
    residual,
)


def _norms(target: str, source: str) -> tuple[Rule, Rule]:
    """A block's norm, if it precedes its branch as in a ViT.

    In the sizes with ``gamma1`` the norms follow the branches.
    """
    return tuple(
        Rule(
            f'layers.{{i}}.{target}.{leaf}',
            f'blocks.{{i}}.{source}.{leaf}',
            ('residual',),
            unless='layers.{i}.gamma1',
        )
        for leaf in ('weight', 'bias')
    )


SPACES = (
    residual('ln1.weight'),
    heads('layers.{i}.att.output.weight'),
    hidden('layers.{i}.ffn.key.weight'),
)

RULES = (
    POS_EMBED,
    *patch_embed('patch_embed.projection'),
    *_norms('ln1', 'norm1'),
    Rule(
        'layers.{i}.att.output.weight',
        'blocks.{i}.attn.proj.weight',
        ('residual', 'heads'),
        fan_in=1,
    ),
    *_norms('ln2', 'norm2'),
    Rule(
        'layers.{i}.ffn.key.weight',
        'blocks.{i}.mlp.fc1.weight',
        ('hidden', 'residual'),
        fan_in=1,
    ),
    Rule(
        'layers.{i}.ffn.value.weight',
        'blocks.{i}.mlp.fc2.weight',
        ('residual', 'hidden'),
        fan_in=1,
    ),
    Rule('ln1.weight', 'norm.weight', ('residual',)),
    Rule('ln1.bias', 'norm.bias', ('residual',)),
    *HEAD,
)

# The official code initialises the token mixing separately for every layer and channel,
# which the model has already done.
FRESH = (
    Fresh(
        'linear_weight',
        (
            'layers.{i}.att.output.weight',
            'layers.{i}.ffn.key.weight',
            'layers.{i}.ffn.value.weight',
            'head.fc.weight',
        ),
        dict(type='trunc_normal', std=0.02),
    ),
    Fresh('linear_bias', ('head.fc.bias',), dict(type='zeros')),
)


@WEIGHT_MAPS.register_module()
def vit_to_vrwkv() -> WeightMap:
    """Weights that a Vision-RWKV inherits from a ViT or DeiT.

    These are position and patch embedding, norms, the output projection of the spatial
    mix from that of the attention, the two matrices of the channel mix from the
    feed-forward layers, and the head if the classes agree. Not used are the class
    token; q, k and v; and the biases, which Vision-RWKV's linear maps do not have.
    """
    return WeightMap(
        name='vit_to_vrwkv',
        target_layer='layers.{i}.',
        source_layer='blocks.{i}.',
        rules=RULES,
        spaces=SPACES,
        fresh=FRESH,
        rename=from_vit,
    )
