"""ViT and DeiT (canonical names) to Vim and VideoMamba."""

from mmtransmamba.models.backbones import VideoMamba, Vim
from mmtransmamba.registry import WEIGHT_MAPS
from mmtransmamba.transfer.weight_maps.base import EXACT, Fresh, Rule, WeightMap
from mmtransmamba.transfer.weight_maps.vit import (
    HEAD,
    POS_EMBED,
    from_vit,
    heads,
    patch_embed,
    residual,
)

_MIXER = 'layers.{i}.mixer.'

SPACES = (residual('norm_f.weight'), heads(_MIXER + 'out_proj.weight'))

RULES = (
    Rule('cls_token', 'cls_token', (EXACT, EXACT, 'residual')),
    POS_EMBED,
    *patch_embed('patch_embed.proj', method='inflate'),
    # An RMSNorm has no bias and does not subtract the mean: it equals the LayerNorm for
    # tokens whose channels have mean 0.
    Rule('layers.{i}.norm.weight', 'blocks.{i}.norm1.weight', ('residual',)),
    Rule(
        _MIXER + 'out_proj.weight',
        'blocks.{i}.attn.proj.weight',
        ('residual', 'heads'),
        fan_in=1,
    ),
    Rule('norm_f.weight', 'norm.weight', ('residual',)),
    *HEAD,
)

FRESH = (
    Fresh(
        'conv_weight',
        (_MIXER + 'conv1d.weight', _MIXER + 'conv1d_b.weight'),
        dict(type='normal', std='fan_in'),
    ),
    Fresh(
        'conv_bias',
        (_MIXER + 'conv1d.bias', _MIXER + 'conv1d_b.bias'),
        dict(type='zeros'),
    ),
    Fresh('A_log', (_MIXER + 'A_log', _MIXER + 'A_b_log'), dict(type='mamba_a_log')),
    Fresh('D', (_MIXER + 'D', _MIXER + 'D_b'), dict(type='ones')),
    Fresh(
        'dt_weight',
        (_MIXER + 'dt_proj.weight', _MIXER + 'dt_proj_b.weight'),
        dict(type='mamba_dt_weight'),
    ),
    # The official code initialises the backward bias, and VideoMamba both, with 0: then
    # dt is 0.7, and the slowest state halves with every token.
    Fresh(
        'dt_bias',
        (_MIXER + 'dt_proj.bias', _MIXER + 'dt_proj_b.bias'),
        dict(type='mamba_dt_bias'),
    ),
    Fresh(
        'linear_weight',
        (
            _MIXER + 'in_proj.weight',
            _MIXER + 'x_proj.weight',
            _MIXER + 'x_proj_b.weight',
            _MIXER + 'out_proj.weight',
            'head.fc.weight',
        ),
        dict(type='trunc_normal', std=0.02),
    ),
    Fresh('linear_bias', ('head.fc.bias',), dict(type='zeros')),
)


@WEIGHT_MAPS.register_module()
def vit_to_vim() -> WeightMap:
    """Weights that a Vim inherits from a ViT or DeiT.

    These are class token, position and patch embedding, the norms' weights, the output
    projection of the mixer from that of the attention, and the head if the classes
    agree. Not used are the norms' biases; q, k and v, which have no counterpart in a
    scan; and the feed-forward layers, which Vim does not have.
    """
    return WeightMap(
        name='vit_to_vim',
        target_layer='layers.{i}.',
        source_layer='blocks.{i}.',
        rules=RULES,
        spaces=SPACES,
        fresh=FRESH,
        rename=from_vit,
        mixer_maps=('mamba_to_vim',),
        cls_at=Vim.cls_at,
    )


@WEIGHT_MAPS.register_module()
def vit_to_videomamba() -> WeightMap:
    """Weights that a VideoMamba, for images or for video, inherits from a ViT or DeiT.

    Like :func:`vit_to_vim`, with the class token in front. In a video model, the patch
    embedding becomes the middle frame of the kernel, and the temporal embedding keeps
    its own initialisation.
    """
    return WeightMap(
        name='vit_to_videomamba',
        target_layer='layers.{i}.',
        source_layer='blocks.{i}.',
        rules=RULES,
        spaces=SPACES,
        fresh=FRESH,
        rename=from_vit,
        mixer_maps=('mamba_to_vim',),
        cls_at=VideoMamba.cls_at,
    )
