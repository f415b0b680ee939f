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
from mmtransmamba.models.folders import is_encoder
from mmtransmamba.models.teachers.layout import native_size
from mmtransmamba.utils.model_config import input_shape


def export(
    model: nn.Module | str | Path,
    out: str | Path,
    format: str = 'onnx',
    shape: Sequence[int] | None = None,
    **options: Any,
) -> ExportReport | LanguageExportReport:
    """Export a model for programs that do not have this package.

    A vision model is exported to an ONNX, TorchScript or ``torch.export`` file; a
    converted language model to a folder for plain transformers and serving engines.

    Args:
        model: A model from :func:`~mmtransmamba.apis.loading.load`, or an argument of
            that function: the work directory of a training, a checkpoint in it, or a
            model folder. Any other backbone or classifier needs ``shape``.
        out: The file, whose suffix is that of its format (``.onnx``, ``.pt`` or
            ``.pt2``); or the folder for a language model.
        format: ``'onnx'``, ``'torchscript'`` or ``'torch_export'``; ``'granite'`` or
            ``'bamba'`` for a language model.
        shape: Shape of one input, ``(channels, (frames,) height, width)``; by default
            that in the config of a loaded model or of a transformers vision encoder.
        **options: See :func:`~mmtransmamba.apis.export.export_model` and
            :func:`~mmtransmamba.apis.serving.export_language_model`.

    Returns:
        Report on the exported file, with its difference from PyTorch's outputs.

    Raises:
        ImportError: A package that the format needs is not installed.
        ValueError: An argument is not accepted, or the file does not reproduce the
            model's outputs; nothing is then written.
    """
    if format in LANGUAGE_FORMATS:
        if shape is not None:
            raise ValueError(f'shape belongs to images, not to the format {format}')
        return export_language_model(model, out, format, **options)
    if not isinstance(model, nn.Module):
        model = load(model)
    if shape is None and is_encoder(model):
        shape = (model.config.num_channels, *native_size(model.config))
    if shape is None:
        config = getattr(model, '_config', None)
        if config is None:
            raise ValueError(
                'shape is needed for a model that mmtransmamba.load has not loaded: '
                '(channels, height, width) of one image'
            )
        shape = input_shape(student_config(config.model), None)
    return export_model(model, shape, out, format, **options)
