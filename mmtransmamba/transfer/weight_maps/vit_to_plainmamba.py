"""ViT and DeiT (canonical names) to PlainMamba."""

from mmtransmamba.registry import WEIGHT_MAPS
from mmtransmamba.transfer.weight_maps.base import Fresh, Rule, WeightMap
from mmtransmamba.transfer.weight_maps.vit import (
    HEAD,
    POS_EMBED,
    from_vit,
    heads,
    patch_embed,
    residual,
)

SPACES = (residual('ln1.weight'), heads('layers.{i}.mamba.out_proj.weight'))

RULES = (
    POS_EMBED,
    *patch_embed('patch_embed.projection'),
    Rule('layers.{i}.norm.weight', 'blocks.{i}.norm1.weight', ('residual',)),
    Rule('layers.{i}.norm.bias', 'blocks.{i}.norm1.bias', ('residual',)),
    Rule(
        'layers.{i}.mamba.out_proj.weight',
        'blocks.{i}.attn.proj.weight',
        ('residual', 'heads'),
        fan_in=1,
    ),
    Rule('layers.{i}.mamba.out_proj.bias', 'blocks.{i}.attn.proj.bias', ('residual',)),
    Rule('ln1.weight', 'norm.weight', ('residual',)),
    Rule('ln1.bias', 'norm.bias', ('residual',)),
    *HEAD,
)

_MIXER = 'layers.{i}.mamba.'

FRESH = (
    Fresh(
        'conv_weight', (_MIXER + 'conv2d.weight',), dict(type='normal', std='fan_in')
    ),
    Fresh('conv_bias', (_MIXER + 'conv2d.bias',), dict(type='zeros')),
    Fresh('A_log', (_MIXER + 'A_log',), dict(type='mamba_a_log')),
    Fresh('D', (_MIXER + 'D',), dict(type='ones')),
    Fresh('dt_weight', (_MIXER + 'dt_proj.weight',), dict(type='mamba_dt_weight')),
    # PlainMamba adds this bias twice, so half of it makes Mamba's dt.
    Fresh('dt_bias', (_MIXER + 'dt_proj.bias',), dict(type='mamba_dt_bias', scale=0.5)),
    Fresh(
        'linear_weight',
        (
            _MIXER + 'in_proj.weight',
            _MIXER + 'x_proj.weight',
            _MIXER + 'out_proj.weight',
            'head.fc.weight',
        ),
        dict(type='trunc_normal', std=0.02),
    ),
    Fresh(
        'linear_bias',
        (_MIXER + 'in_proj.bias', _MIXER + 'out_proj.bias', 'head.fc.bias'),
        dict(type='zeros'),
    ),
)


@WEIGHT_MAPS.register_module()
def vit_to_plainmamba() -> WeightMap:
    """Weights that a PlainMamba inherits from a ViT or DeiT (TransMamba, Section 3.2).

    These are norms, the output projection of the mixer from that of the attention, the
    position embedding, and the head if the classes agree. Not used are q, k and v,
    which have no counterpart in a scan, and the feed-forward layers, which PlainMamba
    does not have.
    """
    return WeightMap(
        name='vit_to_plainmamba',
        target_layer='layers.{i}.',
        source_layer='blocks.{i}.',
        rules=RULES,
        spaces=SPACES,
        fresh=FRESH,
        rename=from_vit,
        mixer_maps=('mamba_to_plainmamba', 'plainmamba_to_plainmamba'),
    )
