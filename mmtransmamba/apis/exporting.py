"""Exporting a trained model in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mmtransmamba.apis.export import ExportReport, export_model
from mmtransmamba.apis.loading import load
from mmtransmamba.apis.serving import LanguageExportReport, export_language_model
from mmtransmamba.apis.serving.export import FORMATS as LANGUAGE_FORMATS
from mmtransmamba.engine.student import student_config
from mmtransmamba.utils.model_config import input_shape


def export(
    model: nn.Module | str | Path,
    out: str | Path,
    format: str = 'onnx',
    shape: Sequence[int] | None = None,
    **options: Any,
) -> ExportReport | LanguageExportReport:
    """Write a model for programs that do not have this package.

    A vision model becomes an ONNX, TorchScript or ``torch.export`` file; a converted
    language model a folder that plain transformers and serving engines read.

    Args:
        model: A model of :func:`~mmtransmamba.apis.loading.load`, or what that takes:
            the work directory of a training, a checkpoint in it, or a model folder. Any
            other backbone or classifier needs ``shape``.
        out: The file, which ends in ``.onnx``, ``.pt`` or ``.pt2``, as its format does;
            or the folder of a language model.
        format: ``'onnx'``, ``'torchscript'`` or ``'torch_export'``; ``'granite'`` for
            a language model.
        shape: Of one input, ``(channels, (frames,) height, width)``; by default what
            the config of a loaded model says.
        **options: See :func:`~mmtransmamba.apis.export.export_model` and
            :func:`~mmtransmamba.apis.serving.export_language_model`.

    Returns:
        What was written, and how far its outputs are from PyTorch's.

    Raises:
        ImportError: A package that the format needs is not installed.
        ValueError: An argument is not accepted, or the file does not compute what the
            model does; nothing is then written.
    """
    if format in LANGUAGE_FORMATS:
        if shape is not None:
            raise ValueError(f'shape belongs to images, not to the format {format}')
        return export_language_model(model, out, format, **options)
    if not isinstance(model, nn.Module):
        model = load(model)
    if shape is None:
        config = getattr(model, '_config', None)
        if config is None:
            raise ValueError(
                'shape is needed for a model that mmtransmamba.load has not loaded: '
                '(channels, height, width) of one image'
            )
        shape = input_shape(student_config(config.model), None)
    return export_model(model, shape, out, format, **options)
