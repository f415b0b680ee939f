"""ViT and DeiT (canonical names) to PlainMamba."""

from mmtransmamba.models.teachers.vit_names import to_canonical
from mmtransmamba.registry import WEIGHT_MAPS
from mmtransmamba.transfer.weight_maps.base import EXACT, Fresh, Rule, Space, WeightMap

RESIDUAL = Space(
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
    target=('ln1.weight', 0),
)
# The concatenated heads, which the attention's output projection reads. The inner
# channels of the student's mixer take their place, of which there may be more.
HEADS = Space(
    'heads',
    source=(('blocks.{i}.attn.proj.weight', 1),),
    target=('layers.{i}.mamba.out_proj.weight', 1),
    per_layer=True,
)

RULES = (
    Rule('pos_embed', 'pos_embed', (EXACT, EXACT, 'residual'), method='pos_embed'),
    # A stem of several convolutions has no counterpart in a ViT: only a student
    # whose projection sees the image itself takes these two.
    Rule(
        'patch_embed.projection.weight',
        'patch_embed.proj.weight',
        ('residual', EXACT, EXACT, EXACT),
        optional=True,
    ),
    Rule(
        'patch_embed.projection.bias',
        'patch_embed.proj.bias',
        ('residual',),
        follows='patch_embed.projection.weight',
    ),
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
    """What a PlainMamba can take from a ViT or DeiT (TransMamba, Section 3.2).

    Norms, the output projection of the mixer from that of the attention, the
    position embedding, and the head where the classes agree. Left unused: q, k and
    v, for which a scan has no counterpart, and the feed-forward layers, which
    PlainMamba does not have.
    """
    return WeightMap(
        name='vit_to_plainmamba',
        target_layer='layers.{i}.',
        source_layer='blocks.{i}.',
        rules=RULES,
        spaces=(RESIDUAL, HEADS),
        fresh=FRESH,
        rename=to_canonical,
        mixer_maps=('mamba_to_plainmamba', 'plainmamba_to_plainmamba'),
    )
