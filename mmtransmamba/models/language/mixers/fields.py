"""The mixer in a hybrid's config: a type with checked and complete fields."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import Registry

from mmtransmamba.models.language.mixers.attention_mixer import AttentionMixer
from mmtransmamba.registry import DECODER_MIXERS, ENCODER_MIXERS, SCOPE

DEFAULT = 'Mamba2'


def mixer_class(kind: Any, registry: Registry = DECODER_MIXERS) -> type[AttentionMixer]:
    """The mixer that is registered under a name, with or without the scope.

    Only registered mixers are found: a config.json cannot name a module to import.

    Args:
        kind: The name.
        registry: The mixers of decoders, or those of encoders.

    Raises:
        ValueError: No mixer has this name.
    """
    registry.import_from_location()
    known = registry.module_dict
    name = str(kind).removeprefix(f'{SCOPE}.')
    if name not in known:
        raise ValueError(
            f'mixer: type={kind!r} must be one of {", ".join(sorted(known))}. The '
            'module that registers another mixer has to be imported first '
            '(custom_imports in a config, --imports of a tool).'
        )
    return known[name]


def fields_of(mixer: type[AttentionMixer]) -> dict[str, Any]:
    """Names and defaults of a mixer's fields.

    A constructor that passes further fields on (``**fields``) also has those of the
    next class that defines one.
    """
    fields: dict[str, Any] = {}
    for cls in mixer.__mro__:
        if '__init__' not in vars(cls):
            continue
        parameters = inspect.signature(cls.__init__).parameters.values()
        own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        fields = fields | {k: v for k, v in own.items() if k not in fields}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return fields


def as_fields(mixer: str | Mapping[str, Any]) -> dict[str, Any]:
    """A mixer's ``type`` and fields, where its type alone may be given."""
    return {'type': mixer} if isinstance(mixer, str) else dict(mixer)


def complete(
    mixer: str | Mapping[str, Any], registry: Registry = DECODER_MIXERS
) -> dict[str, Any]:
    """A mixer's type under its short name, with all of its fields.

    Args:
        mixer: Its type, or ``type`` and fields that differ from the defaults.
        registry: See :func:`mixer_class`.

    Raises:
        ValueError: The type, a field or a value is unknown.
    """
    given = as_fields(mixer)
    cls = mixer_class(given.pop('type', DEFAULT), registry)
    fields = fields_of(cls)
    check_fields(cls, given)
    for name, default in fields.items():
        if default is inspect.Parameter.empty and name not in given:
            raise ValueError(f'mixer: {name_of(cls)} needs the field {name!r}.')
    # As JSON reads them: lists, not tuples.
    values = {
        k: list(v) if isinstance(v, tuple) else v for k, v in (fields | given).items()
    }
    return {'type': name_of(cls)} | values


def check_fields(mixer: type[AttentionMixer], given: Mapping[str, Any]) -> None:
    """Refuse unknown fields of a mixer, and values of a wrong kind.

    Raises:
        ValueError: There is such a field; the message names it and what is accepted.
    """
    fields, name = fields_of(mixer), name_of(mixer)
    for key, value in given.items():
        if key not in fields:
            raise ValueError(
                f'mixer: {name} has no field {key!r}; it takes {", ".join(fields)}.'
            )
        accepted = mixer.choices.get(key)
        if accepted is not None and value not in accepted:
            raise ValueError(
                f'mixer: {key}={value!r} of {name} must be one of '
                f'{", ".join(map(str, accepted))}.'
            )
        expected = _expected(fields[key])
        if accepted is None and expected and not expected[1](value):
            raise ValueError(f'mixer: {key}={value!r} of {name} must be {expected[0]}.')


def _expected(default: Any):
    """The kind of value of a field with a default, as a description and as a test."""
    if isinstance(default, bool):
        return 'True or False', lambda value: isinstance(value, bool)
    if isinstance(default, int):
        return 'a positive integer', lambda value: type(value) is int and value > 0
    if isinstance(default, float):
        return (
            'a positive number',
            lambda value: type(value) in (int, float) and value > 0,
        )
    if isinstance(default, tuple):
        return 'a list of different numbers from 0', _are_numbers
    return None


def _are_numbers(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and all(type(i) is int and i >= 0 for i in value)
        and len(set(value)) == len(value)
    )


def name_of(mixer: type[AttentionMixer]) -> str:
    """The short name under which a mixer is registered."""
    known = (*DECODER_MIXERS.module_dict.items(), *ENCODER_MIXERS.module_dict.items())
    return next(name for name, cls in known if cls is mixer)


def mixer_class_of(config: Any, layer_idx: int) -> type[AttentionMixer]:
    """Class of the mixer of one layer of a hybrid, see :func:`build_mixer`."""
    return mixer_class(config.mixer_of(layer_idx)['type'], config.mixers)


def build_mixer(config: Any, layer_idx: int, whole: bool = False) -> AttentionMixer:
    """Create the mixer of one layer of a hybrid.

    Args:
        config: Config of the hybrid, a
            :class:`~mmtransmamba.models.language.HybridFields`.
        layer_idx: Number of the layer.
        whole: Whether the mixer of :meth:`AttentionMixer.whole` is created instead.
    """
    fields = config.mixer_of(layer_idx)
    del fields['type']
    kind = mixer_class_of(config, layer_idx)
    return kind(config, layer_idx, **(kind.whole(fields) if whole else fields))
