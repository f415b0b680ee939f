"""The config of the hybrid that a Transformer becomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from mmtransmamba.models.folders.config import check_sizes
from mmtransmamba.models.language import ATTENTION, HYBRIDS, MAMBA, choose_layers

_MMMAMBA = dict(
    mamba_mixer='mamba2', mamba_d_conv=2, mamba_norm='per_head', mamba_skip=False
)
INITS = {
    'mimic': _MMMAMBA,
    'inherit': _MMMAMBA,
    'vkq': dict(mamba_mixer='mamba2', mamba_d_conv=4, mamba_norm='gated_per_head'),
    'subclone': dict(mamba_mixer='mamba', mamba_d_conv=4, mamba_expand=2.0),
    'scratch': _MMMAMBA,
}
"""Kinds of initialisation, and the mixer of the paper that uses them."""

FROM_ATTENTION = ('mimic', 'inherit', 'vkq')
"""Those that take the attention's projections."""

# Not the hybrid's: its own, or pointing at code in the teacher's folder.
_DROPPED = ('model_type', 'architectures', 'transformers_version', 'dtype', 'auto_map')
# Read by transformers, though not among the fields of every config.
_KNOWN = ('head_dim', 'rope_theta', 'rope_scaling')


def hybrid_config(
    teacher: Any,
    layers: str | Sequence[int] = 'evenly',
    ratio: float = 1.0,
    init: str = 'mimic',
    **fields: Any,
) -> Any:
    """Config of the hybrid that a Transformer's config becomes.

    Args:
        teacher: Config of a transformers model of one of the families in
            :data:`~mmtransmamba.models.language.HYBRIDS`.
        layers, ratio: See :func:`~mmtransmamba.models.language.choose_layers`.
        init: See :func:`~mmtransmamba.transfer.language.convert_lm`.
        **fields: Fields that differ from those of the teacher or of ``init``.

    Raises:
        ValueError: Unknown family, initialisation or field, a quantised teacher, or
            one with more than a Mamba layer can take over; k and q for Mamba-1.
    """
    _check_teacher(teacher, init)
    config_cls = HYBRIDS[teacher.model_type][0]
    _check_fields(config_cls, teacher, fields)
    given = teacher.to_dict() | fields
    depth = given['num_hidden_layers']
    kinds = (given.get('layer_types') or [_attention_of(teacher)] * depth)[:depth]
    chosen = choose_layers(depth, layers, ratio)
    kinds = [MAMBA if i in chosen else kind for i, kind in enumerate(kinds)]
    for name in _DROPPED:
        given.pop(name, None)
    history = given.pop('transfer_history', None) or []
    own = INITS[init] | {
        'mamba_in_bias': has_in_bias(teacher),
        'mamba_out_bias': has_out_bias(teacher),
        'mamba_qk_norm': has_qk_norm(teacher),
    }
    if init == 'vkq':
        # Native architectures have one epsilon, so the mixers take the decoder's.
        own['mamba_norm_eps'] = getattr(teacher, 'rms_norm_eps', 1e-5)
    if own['mamba_mixer'] == 'mamba':
        own |= dict(mamba_in_bias=False, mamba_out_bias=False)
    student = config_cls(
        **(given | own | fields | {'layer_types': kinds}),
        # A vision-language teacher's own stages come first.
        transfer_history=[*history, f'init:{init}'],
    )
    _check_mixer(student, init)
    _check_heads(teacher, student)
    return student


def _check_teacher(teacher: Any, init: str) -> None:
    if teacher.get_text_config() is not teacher:
        raise ValueError(
            f'The teacher is a {teacher.model_type!r}, a vision-language model: '
            'convert it with mmtransmamba.transfer.vision_language.convert_vlm.'
        )
    if teacher.model_type not in HYBRIDS:
        raise ValueError(
            f'The teacher is a {teacher.model_type!r}; hybrids exist of '
            f'{", ".join(HYBRIDS)} and InternLM2.'
        )
    if init not in INITS:
        raise ValueError(f'init={init!r} must be one of {", ".join(INITS)}.')
    if getattr(teacher, 'quantization_config', None) is not None:
        raise ValueError(
            'The teacher is quantised (its config has a quantization_config); convert '
            'the model it was made from.'
        )
    if getattr(teacher, 'qk_layernorm', False) and init in FROM_ATTENTION:
        raise ValueError(
            'The teacher has qk_layernorm=True; its LayerNorms of q and k have no '
            f"place in a Mamba layer. Use init='subclone' or 'scratch', not {init!r}."
        )


def _check_fields(config_cls: type, teacher: Any, fields: dict[str, Any]) -> None:
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


def _attention_of(teacher: Any) -> str:
    return (
        'sliding_attention' if getattr(teacher, 'sliding_window', None) else ATTENTION
    )


def has_in_bias(config: Any) -> bool:
    """Whether q, k and v of a Transformer, or of a hybrid's, have a bias."""
    return _family(config) in ('phi', 'qwen2') or bool(
        getattr(config, 'attention_bias', False)
    )


def has_out_bias(config: Any) -> bool:
    """Whether the attention's output projection has one."""
    return _family(config) == 'phi' or bool(getattr(config, 'attention_bias', False))


def has_qk_norm(config: Any) -> bool:
    """Whether the attention has norms of q and k."""
    return _family(config) == 'qwen3'


def _family(config: Any) -> str:
    return config.model_type.removeprefix('hybrid_')


def _check_mixer(student: Any, init: str) -> None:
    """Mamba-1 has nothing shaped as k and q."""
    if init in FROM_ATTENTION and student.mamba_mixer == 'mamba':
        heads = student.num_attention_heads
        size = getattr(student, 'head_dim', None) or student.hidden_size // heads
        raise ValueError(
            f'init={init!r} makes B and C of k and q, which have {size} channels for '
            "each head. mamba_mixer='mamba' has one B and one C of "
            f'{student.mamba_d_state} states for all channels, computed from the '
            "convolution's output, not from the layer's input. Use "
            "mamba_mixer='mamba2', or init='subclone' or 'scratch'."
        )


def _check_heads(teacher: Any, student: Any) -> None:
    """Attention that stays keeps its meaning only if heads are dropped whole."""

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
