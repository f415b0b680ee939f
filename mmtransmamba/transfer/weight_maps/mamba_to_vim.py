"""The mixers of a Mamba or Vim checkpoint to those of Vim and VideoMamba."""

from __future__ import annotations

from mmtransmamba.registry import WEIGHT_MAPS
from mmtransmamba.transfer.weight_maps.base import EXACT, Rule, Space, WeightMap

_MIXER = 'layers.{i}.mixer.'

SPACES = (
    Space(
        'residual',
        source=((_MIXER + 'out_proj.weight', 0), (_MIXER + 'in_proj.weight', 1)),
        target=(_MIXER + 'out_proj.weight', 0),
    ),
    Space(
        'inner',
        source=(
            (_MIXER + 'A_log', 0),
            (_MIXER + 'x_proj.weight', 1),
            (_MIXER + 'x_proj_b.weight', 1),
            (_MIXER + 'dt_proj.weight', 0),
            (_MIXER + 'dt_proj_b.weight', 0),
            (_MIXER + 'out_proj.weight', 1),
        ),
        target=(_MIXER + 'A_log', 0),
        per_layer=True,
    ),
    Space(
        'state',
        source=((_MIXER + 'A_log', 1), (_MIXER + 'A_b_log', 1)),
        target=(_MIXER + 'A_log', 1),
        per_layer=True,
    ),
    Space(
        'dt_rank',
        source=((_MIXER + 'dt_proj.weight', 1), (_MIXER + 'dt_proj_b.weight', 1)),
        target=(_MIXER + 'dt_proj.weight', 1),
        per_layer=True,
    ),
)


def _shared(tensor: str, *axes: str | tuple[str, ...]) -> Rule:
    return Rule(_MIXER + tensor, _MIXER + tensor, axes, fan_in=1)


def _branches(
    forward: str, backward: str, *axes: str | tuple[str, ...], **options
) -> tuple[Rule, Rule]:
    """Rules for one tensor of the forward branch, and for its backward sibling.

    A Mamba reads in one direction only: both branches are initialised from its tensor.
    """
    source = _MIXER + forward
    return (
        Rule(source, source, axes, **options),
        Rule(_MIXER + backward, _MIXER + backward, axes, otherwise=source, **options),
    )


RULES = (
    *_branches('A_log', 'A_b_log', 'inner', 'state'),
    *_branches('D', 'D_b', 'inner'),
    _shared('in_proj.weight', ('inner', 'inner'), 'residual'),
    *_branches(
        'conv1d.weight', 'conv1d_b.weight', 'inner', EXACT, EXACT, optional=True
    ),
    *_branches('conv1d.bias', 'conv1d_b.bias', 'inner'),
    *_branches(
        'x_proj.weight',
        'x_proj_b.weight',
        ('dt_rank', 'state', 'state'),
        'inner',
        fan_in=1,
    ),
    *_branches('dt_proj.weight', 'dt_proj_b.weight', 'inner', 'dt_rank', fan_in=1),
    *_branches('dt_proj.bias', 'dt_proj_b.bias', 'inner'),
    _shared('out_proj.weight', 'residual', 'inner'),
)


@WEIGHT_MAPS.register_module()
def mamba_to_vim() -> WeightMap:
    """Mixers of a Mamba-1, Vim or VideoMamba (``layers.N.mixer.*``).

    Values are copied unchanged. Vim halves the sum of its two branches, but VideoMamba
    does not; a model that inherits ``out_proj`` from the other one differs from it by
    that factor.
    """
    return WeightMap(
        name='mamba_to_vim',
        target_layer='layers.{i}.',
        source_layer='layers.{i}.',
        rules=RULES,
        spaces=SPACES,
    )
