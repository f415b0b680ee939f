"""Exporting a vision model to a file that runs without this package's code."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmtransmamba.apis.export_formats import (
    DEFAULT_OPSET,
    FORMATS,
    OPSETS,
    Recording,
    as_list,
    missing_packages,
    onnx_nodes,
    quiet,
)
from mmtransmamba.engine.student import student_config, trained_part
from mmtransmamba.models.checkpoint import load_pretrained
from mmtransmamba.models.folders import is_encoder
from mmtransmamba.models.taps import DirectionTap, LayerTap
from mmtransmamba.models.trainable import EncoderClassifier
from mmtransmamba.ops import backends
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.evaluation_mode import evaluating
from mmtransmamba.utils.launch import override, read_config
from mmtransmamba.utils.model_config import input_shape
from mmtransmamba.version import __version__

SCANS = ('portable', 'native')
TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 2, 5)
TRACED_BATCH = 2  # a tracer would treat a batch of one as a constant size


class ExportError(ValueError):
    """The model cannot be exported, or the file does not reproduce its outputs."""


@dataclass
class ExportReport:
    """Report on an exported file.

    Attributes:
        path: The file.
        format: One of :data:`FORMATS`.
        size: File size in bytes.
        inputs: Shape of the images; the first entry is ``'batch'`` or a number.
        outputs: Names of the outputs.
        nodes: Number of ONNX nodes; None in other formats.
        differences: Largest difference from PyTorch relative to the largest output, by
            batch size; empty if the file was not checked.
    """

    path: Path
    format: str
    size: int
    inputs: tuple[int | str, ...]
    outputs: list[str]
    nodes: int | None = None
    differences: dict[int, float] = field(default_factory=dict)


def load_for_export(
    config: str | Path | Config,
    checkpoint: str | Path,
    shape: Sequence[int] | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> tuple[nn.Module, tuple[int, ...]]:
    """Build the model of a config, or a distiller's student, with its weights.

    Args:
        config: Config, or its file.
        checkpoint: The weights, complete; see
            :func:`mmtransmamba.models.load_pretrained`.
        shape: Side, height and width, or frames, height and width of the input; by
            default those of the backbone.
        cfg_options: Values that override the config's, by dotted key.

    Returns:
        The model, and the shape of one input, ``(channels, (frames,) height, width)``.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The config has no model, or the checkpoint does not fit it.
    """
    if isinstance(config, Config):
        cfg = override(copy.deepcopy(config), cfg_options)
    else:
        cfg = read_config(config, cfg_options)
    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename} has no model.')
    settings = student_config(cfg.model)
    size = input_shape(settings, shape)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model = MODELS.build(settings)
    load_pretrained(model, checkpoint)
    return model, size


def export_model(
    model: nn.Module,
    shape: Sequence[int],
    out: str | Path,
    format: str = 'onnx',
    *,
    batch: int | None = None,
    features: bool = False,
    opset: int | None = None,
    scan: str = 'portable',
    check: bool = True,
) -> ExportReport:
    """Write a vision model to a file, and check that the file reproduces its outputs.

    The file is written under a temporary name and renamed only after it has passed the
    check: on random images its outputs must equal PyTorch's within :data:`TOLERANCE`,
    relative to the largest. The model itself is left unchanged.

    Args:
        model: A backbone, an image classifier or a video recogniser, in float32 on the
            CPU; for a distiller, its student. See :func:`load_for_export`.
        shape: Shape of one input, ``(channels, (frames,) height, width)``. It is fixed.
        out: The file, with the suffix of its format: ``.onnx``, ``.pt`` or ``.pt2``.
        format: ``'onnx'``, ``'torchscript'`` or ``'torch_export'``.
        batch: A fixed batch size; by default the file accepts any.
        features: Export the backbone's features instead of the classifier's logits.
        opset: ONNX operator set, 20 by default.
        scan: ``'portable'`` for scans as loops of ordinary operators, or ``'native'``
            for this package's operators, which are faster but require
            ``import mmtransmamba.ops`` to load the file. ONNX supports only
            ``'portable'``.
        check: Compare the file with PyTorch.

    Raises:
        ImportError: A package that the format needs is not installed.
        ValueError: An argument is not accepted, the model is of another kind, or (as
            :class:`ExportError`) the file does not reproduce the model's outputs.
    """
    out = Path(out)
    _check_arguments(out, format, batch, opset, scan)
    module, metadata, outputs = _deployed(model, features)
    sizes = CHECKED_BATCHES if batch is None else (batch,)
    images = _images(TRACED_BATCH if batch is None else batch, shape)
    metadata['input'] = ['batch' if batch is None else batch, *shape]
    writer = FORMATS[format]() if opset is None else FORMATS[format](opset)
    part = out.with_name(f'.{out.stem}.part{out.suffix}')

    with _as_deployed(module), torch.no_grad():
        try:
            names = _names(outputs, as_list(module(images)))
            metadata['outputs'] = names
            recording = Recording(module, images, batch is None, names, metadata)
            with quiet(), backends.use_backend(scan):
                _write(writer, recording, part)
            report = ExportReport(
                out, format, part.stat().st_size, tuple(metadata['input']), names
            )
            if format == 'onnx':
                report.nodes = onnx_nodes(part)
            if check:
                with quiet():
                    run = writer.read(part)
                for size in sizes:
                    x = _images(size, shape)
                    report.differences[size] = _difference(
                        as_list(module(x)), run(x), size
                    )
            os.replace(part, out)
        finally:
            part.unlink(missing_ok=True)
    return report


def _check_arguments(
    out: Path, format: str, batch: int | None, opset: int | None, scan: str
) -> None:
    if format not in FORMATS:
        raise ValueError(
            f'format {format!r} is unknown; accepted: {", ".join(FORMATS)}'
        )
    missing = missing_packages(format)
    if missing:
        raise ImportError(
            f'the format {format} needs {", ".join(missing)}: '
            f'pip install {" ".join(missing)}'
        )
    if out.suffix not in FORMATS[format].SUFFIXES:
        raise ValueError(
            f'the file "{out}" is to hold the format {format}; accepted endings: '
            f'{", ".join(FORMATS[format].SUFFIXES)}'
        )
    if not out.absolute().parent.is_dir():
        raise ValueError(f'the folder "{out.absolute().parent}" does not exist')
    if batch is not None and batch < 1:
        raise ValueError(f'batch={batch} must be a positive integer')
    if scan not in SCANS:
        raise ValueError(f'scan {scan!r} is unknown; accepted: {", ".join(SCANS)}')
    if format == 'onnx':
        opset = DEFAULT_OPSET if opset is None else opset
        if opset not in OPSETS:
            raise ValueError(f'opset={opset}; accepted: {OPSETS[0]} to {OPSETS[-1]}')
        if scan != 'portable':
            raise ValueError(
                f'scan {scan!r} does not exist in ONNX; accepted: portable'
            )
    elif opset is not None:
        raise ValueError(f'opset={opset} belongs to the format onnx, not to {format}')


class _Logits(nn.Module):
    """A classifier as a function of normalised images or videos."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.of_videos = hasattr(model, 'cls_head')

    def forward(self, images: Tensor) -> Tensor:
        if self.of_videos:
            # A recogniser takes several clips per video; here there is one.
            return self.model.extract_feat(images.unsqueeze(1), stage='head')[0]
        return self.model(images)


class _Encoder(nn.Module):
    """A transformers vision encoder as a function of normalised images.

    Args:
        model: The encoder.
        features: Return the last tokens ``[B, L, C]`` even if there is a classifier.
        classes: The encoder's number of each class of the file; None for all.
    """

    def __init__(
        self, model: nn.Module, features: bool, classes: list[int] | None = None
    ) -> None:
        super().__init__()
        self.classes = classes
        self.classifies = hasattr(model, 'classifier') and not features
        self.model = model if self.classifies else model.base_model

    def forward(self, images: Tensor) -> Tensor:
        output = self.model(images)
        if not self.classifies:
            return output.last_hidden_state
        return output.logits if self.classes is None else output.logits[:, self.classes]


def _deployed(
    model: nn.Module, features: bool
) -> tuple[nn.Module, dict[str, Any], str]:
    """The part to export, its metadata, and the name of its output.

    Raises:
        ExportError: Models of this kind cannot be exported.
    """
    model = trained_part(model)
    preprocessor, classes = getattr(model, 'data_preprocessor', None), None
    if isinstance(model, EncoderClassifier):
        model, classes = model.encoder, model.head.classes
    kind = type(model).__name__
    backbone = getattr(model, 'backbone', None)
    head = getattr(model, 'cls_head', None) or getattr(model, 'head', None)
    if backbone is None and isinstance(model, BaseModel):
        raise ExportError(
            f'{kind} is not exported; accepted are vision backbones, image classifiers '
            'and recognisers of videos'
        )
    if backbone is not None and head is None and not features:
        raise ExportError(
            f'{kind} has no classification head; accepted with features: its backbone'
        )
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32 or parameter.device.type != 'cpu':
            raise ExportError(
                f'{name} is {parameter.dtype} on {parameter.device}; accepted are '
                'models in float32 on the CPU: model.float().cpu()'
            )
    metadata: dict[str, Any] = dict(model=kind, mmtransmamba=__version__)
    for name in ('mean', 'std'):
        values = getattr(preprocessor, name, None)
        if isinstance(values, Tensor):
            metadata[name] = values.flatten().tolist()
    if is_encoder(model):
        part = _Encoder(model, features, classes)
        return part, metadata, 'logits' if part.classifies else 'features'
    if backbone is None or features:
        metadata['model'] = type(backbone or model).__name__
        return backbone or model, metadata, 'features'
    return _Logits(model), metadata, 'logits'


@contextmanager
def _as_deployed(module: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, with no listener at its taps, during export."""
    taps = [m for m in module.modules() if isinstance(m, (LayerTap, DirectionTap))]
    listeners = [tap.listener for tap in taps]
    try:
        for tap in taps:
            tap.listener = None
        with evaluating(module):
            yield
    finally:
        for tap, listener in zip(taps, listeners, strict=True):
            tap.listener = listener


def _write(writer: Any, recording: Recording, path: Path) -> None:
    try:
        writer.write(recording, path)
    except (ValueError, OSError):
        raise
    except Exception as error:  # of any type: the exporter met an unsupported operation
        reason = str(error).strip().partition('\n')[0]
        raise ExportError(
            f'{type(writer).__name__} cannot record {recording.metadata["model"]}: '
            f'{type(error).__name__}: {reason}'
        ) from error


def _images(batch: int, shape: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *shape, generator=generator)


def _names(output: str, tensors: Sequence[Tensor]) -> list[str]:
    if len(tensors) == 1:
        return [output]
    return [f'{output}_{i}' for i in range(len(tensors))]


def _difference(
    expected: Sequence[Tensor], actual: Sequence[Tensor], batch: int
) -> float:
    """Largest relative difference.

    Raises:
        ExportError: The difference is too large, or NaN.
    """
    largest = 0.0
    for name, (a, b) in enumerate(zip(actual, expected, strict=True)):
        if not b.isfinite().all():
            raise ExportError('the model itself computes NaN or infinite outputs')
        if a.shape != b.shape:
            raise ExportError(
                f'output {name} of the file has shape {list(a.shape)} for a batch of '
                f'{batch}, PyTorch {list(b.shape)}; the file was not kept'
            )
        gap = ((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item()
        if not gap <= TOLERANCE:
            raise ExportError(
                f'output {name} of the file differs from PyTorch by {gap:.1e} for a '
                f'batch of {batch} (accepted: {TOLERANCE:g}); the file was not kept'
            )
        largest = max(largest, gap)
    return largest
