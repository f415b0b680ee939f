"""The mixers in a hybrid's config, and which of them vLLM can run."""

from __future__ import annotations

from typing import Any

DEFAULTS = {
    'Mamba2': dict(
        d_conv=4,
        conv_activation='silu',
        norm='gated',
        norm_eps=1e-5,
        gate=True,
        skip=True,
        in_bias=False,
        out_bias=False,
        qk_norm=False,
        rope=False,
    ),
    'Mamba': dict(
        d_conv=4,
        conv_activation='silu',
        d_state=16,
        expand=1.0,
        in_bias=False,
        out_bias=False,
    ),
}
"""Fields and defaults of the supported mixers, as in ``mmtransmamba``."""

CHOICES = dict(
    conv_activation=('silu', 'identity'),
    norm=('gated', 'gated_per_head', 'per_head', 'none'),
    d_conv=(2, 3, 4),  # taps of vLLM's convolution kernels
    rope=(False,),
)
STATE = ('type', 'd_conv', 'd_state', 'expand')
"""Fields that determine the shapes of the cached states."""


def mixer_of(config: Any, layer: int) -> dict[str, Any]:
    """Type and fields of one layer's mixer."""
    return (config.layer_mixers or {}).get(str(layer), config.mixer)


def complete(mixer: Any, key: str) -> dict[str, Any]:
    """A mixer's type with all of its fields.

    Args:
        mixer: The value in ``config.json``.
        key: Its key, for messages.

    Raises:
        ValueError: The plugin does not support the type, a field or a value.
    """
    given = dict(mixer) if isinstance(mixer, dict) else {'type': mixer}
    kind = given.pop('type', None)
    if kind not in DEFAULTS:
        raise ValueError(f'{key}: type={kind!r} must be one of {_list(DEFAULTS)}')
    unknown = given.keys() - DEFAULTS[kind].keys()
    if unknown:
        raise ValueError(
            f'{key}: {kind} has no field {_list(sorted(unknown))}; accepted: '
            f'{_list(DEFAULTS[kind])}'
        )
    fields = DEFAULTS[kind] | given
    for name, accepted in CHOICES.items():
        if name in fields and fields[name] not in accepted:
            raise ValueError(
                f'{key}: {name}={fields[name]!r} must be one of {_list(accepted)}'
            )
    return {'type': kind} | fields


def complete_all(config: Any) -> None:
    """Complete the mixers of a config in place.

    Raises:
        ValueError: A mixer is not supported, or the layers have states of different
            shapes, for which vLLM has no cache.
    """
    config.mixer = complete(config.mixer, 'mixer')
    layers = {}
    for layer, mixer in (config.layer_mixers or {}).items():
        layers[str(layer)] = complete(mixer, f'layer_mixers.{layer}')
    config.layer_mixers = layers or None
    used = [
        mixer_of(config, i)
        for i, kind in enumerate(config.layer_types)
        if kind == 'linear_attention'
    ]
    for name in STATE:
        values = {mixer.get(name) for mixer in used}
        if len(values) > 1:
            raise ValueError(
                f'layer_mixers: {name} is {_list(sorted(map(str, values)))} in '
                'different layers; vLLM needs states of one shape'
            )


def state_mixer(config: Any) -> dict[str, Any]:
    """The mixer whose states have the shape of every mixer's."""
    for i, kind in enumerate(config.layer_types):
        if kind == 'linear_attention':
            return mixer_of(config, i)
    return config.mixer


def _list(names: Any) -> str:
    return ', '.join(map(str, names))
