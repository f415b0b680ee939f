"""The mixer in configs from before mixers had a field of their own.

Their fields were stored among the Transformer's own, for both kinds of mixer at once.
"""

from __future__ import annotations

from typing import Any

from mmtransmamba.models.language.mixers import fields_of, mixer_class

_KINDS = {'mamba': 'Mamba', 'mamba2': 'Mamba2'}
_DEFAULTS = dict(
    mamba_mixer='mamba2',
    mamba_d_conv=4,
    mamba_conv_activation='silu',
    mamba_d_state=16,
    mamba_expand=1.0,
    mamba_norm='gated',
    mamba_norm_eps=1e-5,
    mamba_gate=True,
    mamba_skip=True,
    mamba_in_bias=False,
    mamba_out_bias=False,
    mamba_qk_norm=False,
)


def take_old_fields(fields: dict[str, Any]) -> dict[str, Any] | None:
    """Remove the old fields, and return the mixer that they describe.

    Args:
        fields: Fields of a config, changed in place.

    Returns:
        Type and fields of the mixer, None if there are no old fields.

    Raises:
        ValueError: The old fields name an unknown mixer.
    """
    found = {name: fields.pop(name) for name in _DEFAULTS if name in fields}
    if not found:
        return None
    values = _DEFAULTS | found
    kind = values['mamba_mixer']
    if kind not in _KINDS:
        raise ValueError(f'mamba_mixer={kind!r} must be one of {", ".join(_KINDS)}.')
    # Fields that are newer than the registry have their defaults.
    taken = [n for n in fields_of(mixer_class(_KINDS[kind])) if f'mamba_{n}' in values]
    return {'type': _KINDS[kind]} | {name: values[f'mamba_{name}'] for name in taken}
