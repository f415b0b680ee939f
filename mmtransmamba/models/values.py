"""Detection of weights with which a model cannot compute."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import torch
from torch import Tensor, nn

from mmtransmamba.compat import is_sharded


def fault_of(tensor: Tensor, infinite: bool = True) -> str | None:
    """The kind of invalid value in a tensor, None if there is none.

    Args:
        tensor: Any dtype; only floating-point tensors can have such values. If it is
            sharded, all processes must call this function.
        infinite: Whether infinity is invalid, besides NaN.

    Returns:
        ``'NaN'`` or ``'infinity'``.
    """
    if not tensor.is_floating_point() or tensor.is_meta or tensor.numel() == 0:
        return None
    values = tensor.detach()
    if is_sharded(values):  # every process looks, and finds the same
        values = values.full_tensor()
    if values.itemsize == 1:  # 8-bit floats have no minimum
        values = values.float()
    low, high = values.aminmax()
    if bool(torch.isnan(low)) or bool(torch.isnan(high)):
        return 'NaN'
    if infinite and bool(torch.isinf(low) | torch.isinf(high)):
        return 'infinity'
    return None


def first_fault(
    tensors: Iterable[tuple[str, Tensor]], may_be_infinite: Container[str] = ()
) -> str | None:
    """The first tensor with NaN or infinity, and which of them; None if there is none.

    Args:
        tensors: Names and tensors.
        may_be_infinite: Names of tensors in which infinity is meaningful, such as an
            attention mask.
    """
    for name, tensor in tensors:
        fault = fault_of(tensor, infinite=name not in may_be_infinite)
        if fault is not None:
            return f'{name} has {fault}'
    return None


def first_fault_in(
    model: nn.Module, state: Mapping[str, Tensor] | None = None
) -> str | None:
    """Like :func:`first_fault`, for a model or a state dict that it is about to load.

    Args:
        model: The model, whose buffers may be infinite.
        state: Tensors by the model's names; by default the model's own.
    """
    buffers = {name for name, _ in model.named_buffers()}
    return first_fault(
        (model.state_dict() if state is None else state).items(), buffers
    )


def is_of_another_kind(given: Tensor, own: Tensor) -> bool:
    """Whether integers, possibly quantised, stand in place of real numbers."""
    return own.is_floating_point() and not given.is_floating_point()


def kinds(given: Tensor, own: Tensor, source: str) -> str:
    """The dtypes of a tensor in a source and in the model, for a message."""
    names = (str(tensor.dtype).removeprefix('torch.') for tensor in (given, own))
    there, here = names
    return f'{source} {there}, model {here}'
