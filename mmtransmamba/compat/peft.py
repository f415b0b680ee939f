"""The bridge of PEFT, to which each mixer announces its projections."""

import sys
from collections.abc import Callable

from .bridging import bridges

_MIXER_PROJECTIONS: dict[str, tuple[str, ...]] = {}
"""The modules of a mixer that correspond to each projection of the attention."""


def announce_adapters(projections: dict[str, tuple[str, ...]]) -> None:
    """Register a mixer's adapter targets with PEFT, now or when it is imported.

    Args:
        projections: Modules of the mixer by the module of attention to which they
            correspond.
    """
    for name, modules in projections.items():
        known = _MIXER_PROJECTIONS.get(name, ())
        _MIXER_PROJECTIONS[name] = tuple(dict.fromkeys([*known, *modules]))
    if 'peft.utils.constants' in sys.modules:
        _fill_tables_of_peft()


@bridges('peft.utils.constants', lasts=True)
def _announce_hybrids_to_peft(execute: Callable[[], None]) -> None:
    """PEFT looks up adapter targets in tables by model type, without a hook.

    A hybrid's targets are those of its Transformer, plus the corresponding modules of
    its mixers.
    """
    execute()
    _fill_tables_of_peft()


def _fill_tables_of_peft() -> None:
    for name, table in vars(sys.modules['peft.utils.constants']).items():
        if not name.endswith('_TARGET_MODULES_MAPPING'):
            continue
        for family in ('llama', 'mistral', 'phi', 'qwen2', 'qwen3'):
            own = table.get(family)
            if isinstance(own, list) and not _MIXER_PROJECTIONS.keys().isdisjoint(own):
                more = [n for o in own for n in _MIXER_PROJECTIONS.get(o, ())]
                table[f'hybrid_{family}'] = list(dict.fromkeys([*own, *more]))
