"""Checks of the fields in a published config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from mmtransmamba.models.folders.config import check_sizes
from mmtransmamba.models.language import ATTENTION, HYBRIDS, MAMBA

# Fields that a hybrid sets itself, or that point to code in the folder.
_DROPPED = ('model_type', 'architectures', 'transformers_version', 'dtype', 'auto_map')


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are set.

    The published code writes all fields of a config, with ``null`` where it uses the
    default.
    """
    return {name: value for name, value in fields.items() if value is not None}


def check_values(where: str, fields: Mapping[str, Any], accepted: Mapping[str, Any]):
    """Refuse fields with unsupported values.

    Args:
        where: The file, and the place in it, for the message.
        fields: The fields.
        accepted: Value by name; a set for several. A missing field is accepted.

    Raises:
        ValueError: A field has another value.
    """
    for name, wanted in accepted.items():
        values = wanted if isinstance(wanted, set | tuple) else (wanted,)
        if name in fields and fields[name] not in values:
            raise ValueError(
                f'{where}: {name}={fields[name]!r} cannot be read; it must be '
                f'{" or ".join(map(repr, values))}.'
            )


def need(where: str, fields: Mapping[str, Any], name: str, kind: type = dict) -> Any:
    """A required field.

    Raises:
        ValueError: It is missing, or of another kind.
    """
    value = fields.get(name)
    if not isinstance(value, kind):
        raise ValueError(f'{where}: {name}={value!r} must be a {kind.__name__}.')
    return value


def part_config(where: str, fields: Mapping[str, Any], kinds: tuple[str, ...]) -> Any:
    """The config of a part of a model, from the fields of a published one.

    Args:
        where: The file, and the place in it, for the message.
        fields: Fields, including ``model_type``.
        kinds: Accepted ``model_type``.

    Raises:
        ValueError: It is of another kind, or a size is not a positive number.
    """
    fields = copy.deepcopy(dict(fields))
    kind = fields.pop('model_type', None)
    if kind not in kinds or kind not in CONFIG_MAPPING:
        raise ValueError(
            f'{where}: model_type={kind!r} cannot be read; it must be one of '
            f'{", ".join(kinds)}.'
        )
    check_sizes(fields, f'{where}: ')
    for name in _DROPPED:
        fields.pop(name, None)
    # Before version 5, transformers wrote the dtype of the weights there.
    fields.pop('torch_dtype', None)
    fields.pop('_name_or_path', None)
    return AutoConfig.for_model(kind, **fields)


def with_mamba(
    text: Any, attention: list[int], mixer: Mapping[str, Any], history: str
) -> Any:
    """The config of a hybrid, derived from that of a Transformer.

    Args:
        text: Config of a Transformer of a family in
            :data:`~mmtransmamba.models.language.HYBRIDS`.
        attention: Layers that keep attention.
        mixer: Type and fields of the mixer of the others.
        history: Note on the origin of the weights.
    """
    given = copy.deepcopy(text.to_dict())
    for name in _DROPPED:
        given.pop(name, None)
    kind = 'sliding_attention' if getattr(text, 'sliding_window', None) else ATTENTION
    kinds = [kind if i in attention else MAMBA for i in range(text.num_hidden_layers)]
    return HYBRIDS[text.model_type][0](
        **given | dict(layer_types=kinds, mixer=dict(mixer)),
        transfer_history=[history],
    )


def read_layers(where: str, layers: Any, depth: int) -> list[int]:
    """A list of layer indices.

    Raises:
        ValueError: It is not a list, or an index is out of range or repeated.
    """
    good = isinstance(layers, list) and all(
        type(i) is int and 0 <= i < depth for i in layers
    )
    if not good or len(set(layers)) != len(layers):
        raise ValueError(
            f'{where}: {layers!r} must be a list of different layers in '
            f'[0, {depth - 1}].'
        )
    return layers


def file_in(folder: str | Path, name: str = 'config.json') -> str:
    """A file's name for messages."""
    return str(Path(folder) / name)
