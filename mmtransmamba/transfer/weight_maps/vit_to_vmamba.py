"""ViT and DeiT (canonical names) to VMamba."""

from mmtransmamba.registry import WEIGHT_MAPS
from mmtransmamba.transfer.weight_maps.base import Fresh, Rule, WeightMap
from mmtransmamba.transfer.weight_maps.vit import (
    HEAD,
    from_vit,
    heads,
    hidden,
    patch_embed,
    residual,
)

_LAYER = 'layers.{s}.blocks.{i}.'


def _rule(target: str, source: str, *axes: str, **options) -> Rule:
    """A rule for every block.

    Each stage has its own width. All rules are optional, so that ``width='whole'``
    copies the stage as wide as the teacher and skips the others.
    """
    return Rule(_LAYER + target, 'blocks.{i}.' + source, axes, optional=True, **options)


SPACES = (
    residual(_LAYER + 'norm.weight'),
    heads(_LAYER + 'op.out_proj.weight'),
    hidden(_LAYER + 'mlp.fc1.weight'),
)

RULES = (
    *patch_embed('patch_embed.0'),
    _rule('norm.weight', 'norm1.weight', 'residual'),
    _rule('norm.bias', 'norm1.bias', 'residual'),
    _rule('op.out_proj.weight', 'attn.proj.weight', 'residual', 'heads', fan_in=1),
    _rule('norm2.weight', 'norm2.weight', 'residual'),
    _rule('norm2.bias', 'norm2.bias', 'residual'),
    _rule('mlp.fc1.weight', 'mlp.fc1.weight', 'hidden', 'residual', fan_in=1),
    _rule('mlp.fc1.bias', 'mlp.fc1.bias', 'hidden'),
    _rule('mlp.fc2.weight', 'mlp.fc2.weight', 'residual', 'hidden', fan_in=1),
    _rule('mlp.fc2.bias', 'mlp.fc2.bias', 'residual'),
    Rule('classifier.norm.weight', 'norm.weight', ('residual',), optional=True),
    Rule('classifier.norm.bias', 'norm.bias', ('residual',), optional=True),
    *HEAD,
)

_MIXER = _LAYER + 'op.'

FRESH = (
    Fresh(
        'conv_weight', (_MIXER + 'conv2d.weight',), dict(type='normal', std='fan_in')
    ),
    Fresh('conv_bias', (_MIXER + 'conv2d.bias',), dict(type='zeros')),
    Fresh('A_log', (_MIXER + 'A_logs',), dict(type='mamba_a_log')),
    Fresh('D', (_MIXER + 'Ds',), dict(type='ones')),
    Fresh('dt_weight', (_MIXER + 'dt_projs_weight',), dict(type='mamba_dt_weight')),
    Fresh('dt_bias', (_MIXER + 'dt_projs_bias',), dict(type='mamba_dt_bias')),
    Fresh(
        'linear_weight',
        (
            _MIXER + 'in_proj.weight',
            _MIXER + 'out_proj.weight',
            _LAYER + 'mlp.fc1.weight',
            _LAYER + 'mlp.fc2.weight',
            'head.fc.weight',
        ),
        dict(type='trunc_normal', std=0.02),
    ),
    Fresh(
        'linear_bias',
        (_LAYER + 'mlp.fc1.bias', _LAYER + 'mlp.fc2.bias', 'head.fc.bias'),
        dict(type='zeros'),
    ),
)


@WEIGHT_MAPS.register_module()
def vit_to_vmamba() -> WeightMap:
    """Weights that a VMamba inherits from a ViT or DeiT.

    Its blocks are numbered through the stages. They inherit norms, the output
    projection of the mixer from that of the attention, and the feed-forward layers in
    the versions that have them; the head is inherited if the classes agree. A stage
    narrower or wider than the teacher inherits as many channels as both have, the same
    in all its blocks. Not used are q, k and v; class token and position embedding,
    which VMamba does not have; and the patch embedding, unless the patches are as small
    as VMamba's.
    """
    return WeightMap(
        name='vit_to_vmamba',
        target_layer=_LAYER,
        source_layer='blocks.{i}.',
        rules=RULES,
        spaces=SPACES,
        fresh=FRESH,
        rename=from_vit,
    )
