"""Writing a vision model in one of the deployment formats, and reading it.

Each format is a class with ``SUFFIXES``, ``write`` and ``read``. ``read`` returns a
callable that takes images and returns the outputs as tensors.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmtransmamba.compat import release
from mmtransmamba.utils.log_levels import at_level

METADATA = 'mmtransmamba.json'
INPUT = 'images'
OPSETS = range(18, 24)
DEFAULT_OPSET = 20
# The oldest PyTorch whose torch.export was seen to keep the batch dynamic; 2.6 fails.
NEEDED_TORCH = (2, 9)
ONNX_LIMIT = 2**31  # maximum size of a protobuf message in bytes

Run = Callable[[Tensor], list[Tensor]]


@dataclass
class Recording:
    """A model to export, with its example input.

    Attributes:
        module: Takes images, returns a tensor or a tuple of them.
        images: Example ``[B, C, (T,) H, W]``.
        dynamic: Whether the file accepts any batch size, or only that of ``images``.
        outputs: Names of the outputs.
        metadata: Information for users of the file, stored in it.
    """

    module: nn.Module
    images: Tensor
    dynamic: bool
    outputs: Sequence[str]
    metadata: dict[str, Any]


class TorchExport:
    """``torch.export``: a PyTorch program that does not need the model's code."""

    SUFFIXES: ClassVar[tuple[str, ...]] = ('.pt2',)
    PACKAGES: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def program(recording: Recording) -> torch.export.ExportedProgram:
        return torch.export.export(
            recording.module,
            (recording.images,),
            dynamic_shapes=_dynamic_shapes(recording),
        )

    @classmethod
    def write(cls, recording: Recording, path: Path) -> None:
        extra = {METADATA: json.dumps(recording.metadata)}
        torch.export.save(cls.program(recording), path, extra_files=extra)

    @staticmethod
    def read(path: Path) -> Run:
        return _listed(torch.export.load(path).module())


class _OfOneShape(nn.Module):
    """A traced model that refuses inputs of another shape than it was traced with.

    Its scans have the order of the traced grid, and would run on another one with as
    many tokens.
    """

    def __init__(self, traced: nn.Module, shape: list[int]) -> None:
        super().__init__()
        self.traced = traced
        self.shape = shape

    def forward(self, images):  # as the traced module's; TorchScript infers the types
        if list(images.shape[1:]) != self.shape:
            raise ValueError('the images have another shape than the exported model')
        return self.traced(images)


class TorchScript:
    """``torch.jit``: a traced model, also for C++."""

    SUFFIXES: ClassVar[tuple[str, ...]] = ('.pt', '.ts', '.torchscript')
    PACKAGES: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def write(recording: Recording, path: Path) -> None:
        traced = torch.jit.trace(
            recording.module, recording.images, check_trace=False, strict=False
        )
        traced = torch.jit.script(_OfOneShape(traced, list(recording.images.shape[1:])))
        extra = {METADATA: json.dumps(recording.metadata)}
        torch.jit.save(traced, str(path), _extra_files=extra)

    @staticmethod
    def read(path: Path) -> Run:
        return _listed(torch.jit.load(str(path)))


class Onnx:
    """ONNX for onnxruntime and other runtimes.

    Args:
        opset: Version of the standard operators.
    """

    SUFFIXES: ClassVar[tuple[str, ...]] = ('.onnx',)
    PACKAGES: ClassVar[tuple[str, ...]] = ('onnx', 'onnxscript', 'onnxruntime')

    def __init__(self, opset: int = DEFAULT_OPSET) -> None:
        self.opset = opset

    def write(self, recording: Recording, path: Path) -> None:
        weights = sum(p.numel() * 4 for p in recording.module.parameters())
        if weights >= ONNX_LIMIT:
            raise ValueError(
                f'the weights have {weights / 2**30:.1f} GiB; one ONNX file holds less '
                'than 2. Accepted for them: the formats torchscript and torch_export'
            )
        program = torch.onnx.export(
            TorchExport.program(recording),
            dynamo=True,
            dynamic_shapes=_dynamic_shapes(recording),  # names the batch dimension
            input_names=[INPUT],
            output_names=list(recording.outputs),
            opset_version=self.opset,
            verbose=False,
        )
        for key, value in recording.metadata.items():
            program.model.metadata_props[key] = json.dumps(value)
        program.save(path, external_data=False)

    @staticmethod
    def read(path: Path) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider']
        )
        return lambda images: [
            torch.from_numpy(y) for y in session.run(None, {INPUT: images.numpy()})
        ]


FORMATS = {'onnx': Onnx, 'torchscript': TorchScript, 'torch_export': TorchExport}


def _dynamic_shapes(recording: Recording) -> tuple[dict, ...] | None:
    return ({0: torch.export.Dim('batch', min=1)},) if recording.dynamic else None


def missing_packages(format: str) -> list[str]:
    """The packages that a format needs and that are missing or too old."""
    missing = [name for name in FORMATS[format].PACKAGES if find_spec(name) is None]
    if FORMATS[format] is not TorchScript and release(torch.__version__) < NEEDED_TORCH:
        missing.insert(0, f'torch>={".".join(map(str, NEEDED_TORCH))}')
    return missing


def onnx_nodes(path: str | Path) -> int:
    """Number of nodes of an ONNX file, including those inside loops."""
    import onnx

    def count(graph: onnx.GraphProto) -> int:
        inner = (a.g for node in graph.node for a in node.attribute if a.HasField('g'))
        return len(graph.node) + sum(map(count, inner))

    return count(onnx.load(str(path), load_external_data=False).graph)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress tracer warnings about constant sizes, and deprecation warnings."""
    names = ('torch.onnx', 'onnxscript', 'onnx_ir', 'torch.export')
    quieter = at_level(logging.ERROR, *map(logging.getLogger, names))
    with quieter, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def _listed(model: Callable[[Tensor], Any]) -> Run:
    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return as_list(model(images))

    return run


def as_list(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """One output or several, as a list."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
