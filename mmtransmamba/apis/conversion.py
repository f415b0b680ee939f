"""Conversion of a pre-trained model, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mmtransmamba.models.folders import is_vision_language
from mmtransmamba.transfer.language import convert_lm
from mmtransmamba.transfer.subclone import SubcloneReport
from mmtransmamba.transfer.vision_language import convert_vlm


def convert(
    teacher: nn.Module | str | Path,
    layers: str | Sequence[int] = 'evenly',
    ratio: float = 1.0,
    init: str = 'mimic',
    **options: Any,
) -> tuple[nn.Module, SubcloneReport]:
    """Turn a language or vision-language model into a hybrid with Mamba layers.

    Only the attention of the chosen layers is replaced; it gives its weights to the
    mixers. Everything else is the teacher's.

    Args:
        teacher: A transformers model, or its folder. Of a vision-language model the
            language model inside is converted.
        layers: Which layers: a position of
            :func:`~mmtransmamba.models.language.choose_layers` such as ``'evenly'`` or
            ``'late'``, indices, or ``'auto'`` for those whose conversion costs least
            on ``calibration``.
        ratio: Share of the layers that become Mamba.
        init: What the mixers are initialised from, see
            :func:`~mmtransmamba.transfer.language.convert_lm`.
        **options: Further arguments of
            :func:`~mmtransmamba.transfer.language.convert_lm`, and fields of the
            student's config.

    Returns:
        The hybrid, a transformers model, and the report on every tensor.

    Raises:
        FileNotFoundError: A folder or file does not exist.
        TypeError: The teacher is not a transformers language model.
        ValueError: The teacher's family, a layer, a field or a shape does not fit.
    """
    if isinstance(teacher, nn.Module) and not hasattr(teacher, 'config'):
        raise TypeError(
            f'teacher is a {type(teacher).__name__}; convert() takes transformers '
            'language and vision-language models. For a vision Transformer train a '
            'student with a config, or use inherit(student, teacher).'
        )
    run = convert_vlm if is_vision_language(teacher) else convert_lm
    return run(teacher, layers=layers, ratio=ratio, init=init, **options)
