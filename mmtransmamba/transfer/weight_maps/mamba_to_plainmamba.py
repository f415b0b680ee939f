"""The mixers of a Mamba checkpoint to those of PlainMamba."""

from __future__ import annotations

from mmtransmamba.registry import WEIGHT_MAPS
from mmtransmamba.transfer.weight_maps.base import EXACT, Rule, Space, WeightMap


def _map(name: str, mixer: str, rules: tuple[Rule, ...], dt_bias: float) -> WeightMap:
    """The rules shared by both kinds of checkpoint, and ``rules``.

    Args:
        name: Name of the map.
        mixer: Name of a layer's mixer in the source.
        rules: Further rules.
        dt_bias: Factor on dt_proj's bias.
    """
    source, target = f'layers.{{i}}.{mixer}.', 'layers.{i}.mamba.'
    spaces = (
        Space(
            'residual',
            source=((source + 'out_proj.weight', 0), (source + 'in_proj.weight', 1)),
            target=(target + 'out_proj.weight', 0),
        ),
        Space(
            'inner',
            source=(
                (source + 'A_log', 0),
                (source + 'x_proj.weight', 1),
                (source + 'dt_proj.weight', 0),
                (source + 'out_proj.weight', 1),
            ),
            target=(target + 'A_log', 0),
            per_layer=True,
        ),
        Space(
            'state',
            source=((source + 'A_log', 1),),
            target=(target + 'A_log', 1),
            per_layer=True,
        ),
        Space(
            'dt_rank',
            source=((source + 'dt_proj.weight', 1),),
            target=(target + 'dt_proj.weight', 1),
            per_layer=True,
        ),
    )

    def rule(tensor: str, *axes: str | tuple[str, ...], **options) -> Rule:
        return Rule(target + tensor, source + tensor, axes, **options)

    shared = (
        rule('A_log', 'inner', 'state'),
        rule('D', 'inner'),
        rule('in_proj.weight', ('inner', 'inner'), 'residual', fan_in=1),
        rule('in_proj.bias', ('inner', 'inner')),
        rule('x_proj.weight', ('dt_rank', 'state', 'state'), 'inner', fan_in=1),
        rule('dt_proj.weight', 'inner', 'dt_rank', fan_in=1),
        rule('dt_proj.bias', 'inner', scale=dt_bias),
        rule('out_proj.weight', 'residual', 'inner', fan_in=1),
        rule('out_proj.bias', 'residual'),
    )
    return WeightMap(
        name=name,
        target_layer='layers.{i}.',
        source_layer='layers.{i}.',
        rules=shared + rules,
        spaces=spaces,
    )


@WEIGHT_MAPS.register_module()
def mamba_to_plainmamba() -> WeightMap:
    """A Mamba-1 or Vim checkpoint (``layers.N.mixer.*``) to PlainMamba's mixers.

    The one-dimensional convolution has no counterpart. PlainMamba adds dt_proj's bias
    twice, so it gets half of it. Of Vim's two directions, the forward one is copied.
    """
    return _map('mamba_to_plainmamba', 'mixer', (), dt_bias=0.5)


@WEIGHT_MAPS.register_module()
def plainmamba_to_plainmamba() -> WeightMap:
    """The mixers of a PlainMamba (``layers.N.mamba.*``) to those of another."""
    source = target = 'layers.{i}.mamba.'
    rules = (
        Rule(
            target + 'conv2d.weight',
            source + 'conv2d.weight',
            ('inner', EXACT, EXACT, EXACT),
        ),
        Rule(target + 'conv2d.bias', source + 'conv2d.bias', ('inner',)),
        Rule(target + 'direction_Bs', source + 'direction_Bs', (EXACT, 'state')),
    )
    return _map('plainmamba_to_plainmamba', 'mamba', rules, dt_bias=1.0)
