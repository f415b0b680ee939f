"""Computing the constants of a graph while something records what is computed."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes


def untraced(*tensors: Tensor) -> AbstractContextManager:
    """Compute unseen by ``torch.export`` and ``torch.jit.trace``.

    What is computed inside becomes a constant of the graph that is recorded outside.
    A cache may then keep it, because it is no placeholder of that recording, and no
    operator that an export format lacks is needed for it.

    ``torch.compile`` goes on tracing, and so does everything where a tensor has no
    values yet.

    Args:
        *tensors: What is computed from. Under ``torch.jit.trace`` they are taken for
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


def plain_size(size: int | Tensor) -> int:
    """A size as an integer; ``torch.jit.trace`` hands sizes over as tensors.

    The graph that it records is then one for this size.
    """
    return int(size) if isinstance(size, Tensor) else size
