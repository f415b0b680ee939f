"""The config of a hybrid, derived from that of its Transformer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmtransmamba.models.folders.config import check_sizes
from mmtransmamba.models.language import ATTENTION, HYBRIDS, MAMBA, choose_layers
from mmtransmamba.models.language.config import SLIDING
from mmtransmamba.models.language.mixers import Init, mixer_class
from mmtransmamba.models.language.mixers.fields import as_fields, name_of
from mmtransmamba.transfer.convert.spec import Conversion, init_of

# Fields not copied: the hybrid sets its own, or they point to code of the teacher.
DROPPED = ('model_type', 'architectures', 'transformers_version', 'dtype', 'auto_map')
# Read by transformers, although not among the fields of every config.
_KNOWN = ('head_dim', 'rope_theta', 'rope_scaling')


def hybrid_config(teacher: Any, conversion: Conversion) -> Any:
    """Derive a hybrid's config from that of its Transformer.

    Args:
        teacher: Config of a transformers model of one of the families in
            :data:`~mmtransmamba.models.language.HYBRIDS`.
        conversion: The requested conversion, with ``layers`` other than ``'auto'``.

    Raises:
        ValueError: Unknown family, layers or field, a quantised teacher, or one with
            features that a mixer cannot take over.
    """
    init, fields = conversion.initialisation, conversion.fields
    _check_teacher(teacher, conversion.init, init)
    config_cls = HYBRIDS[teacher.model_type][0]
    _check_fields(config_cls, teacher, fields)
    given = teacher.to_dict() | dict(fields)
    depth = given['num_hidden_layers']
    kinds = (given.get('layer_types') or attention_kinds(teacher))[:depth]
    chosen = choose_layers(depth, conversion.layers, conversion.ratio)
    slides = [i for i in chosen if kinds[i] == SLIDING]
    kinds = [MAMBA if i in chosen else kind for i, kind in enumerate(kinds)]
    for name in DROPPED:
        given.pop(name, None)
    history = given.pop('transfer_history', None) or []
    has = dict(
        in_bias=has_in_bias(teacher),
        out_bias=has_out_bias(teacher),
        qk_norm=has_qk_norm(teacher),
        norm_eps=getattr(teacher, 'rms_norm_eps', 1e-5),
    )
    mixer = {
        **_mixer_fields(conversion.mixer_type, init, has),
        **conversion.mixer_fields,
    }
    if given.get('layer_mixers'):
        given['layer_mixers'] = {
            layer: _layer_mixer(own, mixer, conversion.init, has)
            for layer, own in given['layer_mixers'].items()
        }
    student = config_cls(
        **(given | {'layer_types': kinds, 'mixer': mixer}),
        # A vision-language teacher's own stages come first.
        transfer_history=[*history, f'init:{conversion.init}'],
    )
    _check_key_layers(student, slides)
    _check_heads(teacher, student)
    return student


def _mixer_fields(kind: str, init: Init, has: Mapping[str, Any]) -> dict[str, Any]:
    """Type of a mixer, with the fields of its initialisation and of the teacher."""
    follows = (*mixer_class(kind).follows, *init.follows)
    return {'type': kind, **init.fields, **{name: has[name] for name in follows}}


def _layer_mixer(
    own: str | Mapping[str, Any],
    mixer: Mapping[str, Any],
    init: str,
    has: Mapping[str, Any],
) -> dict[str, Any]:
    """The mixer of a single layer; one of the common type has the common fields.

    Raises:
        ValueError: There is no such mixer, or it has no such initialisation.
    """
    own = as_fields(own)
    kind = name_of(mixer_class(own.pop('type', mixer['type'])))
    if kind == mixer['type']:
        return {**mixer, **own}
    return {**_mixer_fields(kind, init_of(kind, init), has), **own}


def _check_key_layers(student: Any, slides: list[int]) -> None:
    """Check that the heads that a mixer keeps are those of full attention."""
    wrong = [i for i in student.key_layers if i in slides]
    if wrong:
        raise ValueError(
            f'attention_kv_heads: the attention of layer {", ".join(map(str, wrong))} '
            'has a sliding window, and kept heads have none. Convert the layer whole.'
        )


def _check_teacher(teacher: Any, init: str, chosen: Init) -> None:
    if teacher.model_type not in HYBRIDS:
        raise ValueError(
            f'The teacher is a {teacher.model_type!r}; hybrids exist of '
            f'{", ".join(HYBRIDS)} and InternLM2.'
        )
    check_not_quantised(teacher)
    if getattr(teacher, 'qk_layernorm', False) and chosen.from_attention:
        raise ValueError(
            'The teacher has qk_layernorm=True; its LayerNorms of q and k have no '
            f"place in a Mamba layer. Use init='subclone' or 'scratch', not {init!r}."
        )


def check_not_quantised(teacher: Any) -> None:
    """Refuse the config of a quantised model.

    Raises:
        ValueError: It is one.
    """
    if getattr(teacher, 'quantization_config', None) is not None:
        raise ValueError(
            'The teacher is quantised (its config has a quantization_config); convert '
            'the model it was made from.'
        )


def _check_fields(config_cls: type, teacher: Any, fields: Mapping[str, Any]) -> None:
    names = {field.name for field in dataclasses.fields(config_cls)}
    unknown = [
        name
        for name in fields
        if name not in names and name not in _KNOWN and not hasattr(teacher, name)
    ]
    if unknown:
        raise ValueError(
            f'{config_cls.__name__} has no field {", ".join(map(repr, unknown))}.'
        )
    check_sizes(fields)
    depth = fields.get('num_hidden_layers', teacher.num_hidden_layers)
    if depth > teacher.num_hidden_layers:
        raise ValueError(
            f'num_hidden_layers={depth} exceeds the {teacher.num_hidden_layers} layers '
            'of the teacher.'
        )


def attention_kinds(teacher: Any) -> list[str]:
    """The kind of attention of each layer of a Transformer, by its config."""
    slides = getattr(teacher, 'sliding_window', None)
    kind = SLIDING if slides else ATTENTION
    given = getattr(teacher, 'layer_types', None)
    return list(given or [kind] * teacher.num_hidden_layers)


def has_in_bias(config: Any) -> bool:
    """Whether q, k and v of a Transformer, or of a hybrid's, have a bias."""
    return _family(config) in ('phi', 'qwen2') or bool(
        getattr(config, 'attention_bias', False)
    )


def has_out_bias(config: Any) -> bool:
    """Whether the attention's output projection has a bias."""
    return _family(config) == 'phi' or bool(getattr(config, 'attention_bias', False))


def has_qk_norm(config: Any) -> bool:
    """Whether the attention has norms of q and k."""
    return _family(config) == 'qwen3'


def _family(config: Any) -> str:
    return config.model_type.removeprefix('hybrid_')


def _check_heads(teacher: Any, student: Any) -> None:
    """Check that a student with attention layers drops whole heads only."""

    def geometry(config: Any) -> tuple[int, float]:
        heads = config.num_attention_heads
        size = getattr(config, 'head_dim', None) or config.hidden_size // heads
        return size, heads / (config.num_key_value_heads or heads)

    if set(student.layer_types) != {MAMBA} and geometry(teacher) != geometry(student):
        raise ValueError(
            'A narrower student with attention layers needs the head size and the '
            f'number of query heads per key-value head of its teacher, '
            f'{geometry(teacher)}; it has {geometry(student)}. Set head_dim, '
            'num_attention_heads and num_key_value_heads.'
        )
