"""Computing the constants of a graph outside the recording of a tracer."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes


def untraced(*tensors: Tensor) -> AbstractContextManager:
    """Compute without being recorded by ``torch.export`` and ``torch.jit.trace``.

    The result becomes a constant of the recorded graph. It may be cached, because it
    is not a placeholder of that recording, and the export format need not support the
    operators used to compute it.

    ``torch.compile`` still traces the computation, and so does every tracer when a
    tensor has no values yet.

    Args:
        *tensors: Inputs of the computation. ``torch.jit.trace`` treats them as
            constants.
    """
    if torch.compiler.is_dynamo_compiling() or any(
        isinstance(x, FakeTensor) for x in tensors
    ):
        return nullcontext()
    stack = ExitStack()
    state = torch._C._get_tracing_state()
    if state is not None:
        torch._C._set_tracing_state(None)
        stack.callback(torch._C._set_tracing_state, state)
    stack.enter_context(_disable_current_modes())
    return stack


def is_exporting() -> bool:
    """Whether ``torch.export`` records; before PyTorch 2.7 it cannot be known."""
    return getattr(torch.compiler, 'is_exporting', bool)()


def is_recorded() -> bool:
    """Whether ``torch.compile``, ``torch.export`` or ``torch.jit.trace`` records."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def plain_size(size: int | Tensor) -> int:
    """A size as an integer; ``torch.jit.trace`` hands sizes over as tensors.

    The recorded graph is then valid for this size only.
    """
    return int(size) if isinstance(size, Tensor) else size
