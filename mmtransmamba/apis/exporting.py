"""Exporting a trained model in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mmtransmamba.apis.export import ExportReport, export_model
from mmtransmamba.apis.loading import load
from mmtransmamba.engine.student import student_config
from mmtransmamba.utils.model_config import input_shape


def export(
    model: nn.Module | str | Path,
    out: str | Path,
    format: str = 'onnx',
    shape: Sequence[int] | None = None,
    **options: Any,
) -> ExportReport:
    """Write a vision model to an ONNX, TorchScript or ``torch.export`` file.

    Args:
        model: A model of :func:`~mmtransmamba.apis.loading.load`, or what that takes:
            the work directory of a training, or a checkpoint in it. Any other backbone
            or classifier needs ``shape``.
        out: The file; it ends in ``.onnx``, ``.pt`` or ``.pt2``, as its format does.
        format: ``'onnx'``, ``'torchscript'`` or ``'torch_export'``.
        shape: Of one input, ``(channels, (frames,) height, width)``; by default what
            the config of a loaded model says.
        **options: See :func:`~mmtransmamba.apis.export.export_model`.

    Returns:
        What was written, and how far its outputs are from PyTorch's.

    Raises:
        ImportError: A package that the format needs is not installed.
        ValueError: An argument is not accepted, or the file does not compute what the
            model does; nothing is then written.
    """
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
