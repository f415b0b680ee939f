"""The conversion of single heads, the others of their layers staying attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmtransmamba.models.language.mixers import head_mixer, mixer_class
from mmtransmamba.transfer.convert.spec import Conversion


def convert_heads(
    conversion: Conversion, heads: Sequence[Sequence[int]], groups: int
) -> Conversion:
    """The conversion of some heads, each of a layer and a key-value head.

    Layers all of whose heads are converted have the linear mixer alone; layers without
    any stay attention.

    Args:
        conversion: Its ``layers`` and ``ratio`` are replaced.
        heads: The heads that are converted.
        groups: Number of key-value heads of a layer.

    Raises:
        ValueError: The mixer has no heads, or ``layer_mixers`` are given.
    """
    given = dict(conversion.fields)
    if given.get('layer_mixers'):
        raise ValueError(
            'layer_mixers cannot be given with a ranking of heads, which sets them.'
        )
    converted = {(layer, head) for layer, head in heads}
    layers = sorted({layer for layer, _ in converted})
    kept = {
        i: [head for head in range(groups) if (i, head) not in converted]
        for i in layers
    }
    mixers = {i: dict(attention_kv_heads=own) for i, own in kept.items() if own}
    if not mixers:
        return replace(conversion, layers=layers)
    mixer = dict(conversion.mixer_fields, type=mixer_of_heads(conversion))
    given['layer_mixers'] = mixers
    return replace(conversion, layers=layers, mixer=mixer, fields=given)


def mixer_of_heads(conversion: Conversion) -> str:
    """The mixer that keeps some heads beside that of a conversion.

    Raises:
        ValueError: There is none, or the conversion already keeps some heads.
    """
    if conversion.mixer_fields.get('attention_kv_heads'):
        raise ValueError(
            'attention_kv_heads cannot be given with a ranking of heads, which sets it.'
        )
    name = head_mixer(mixer_class(conversion.mixer_type))
    if name is None:
        raise ValueError(
            f'mixer: {conversion.mixer_type} converts whole layers. Single heads '
            'become Mamba2, GatedDeltaNet or KDA.'
        )
    return name
