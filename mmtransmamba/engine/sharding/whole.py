"""Whole tensors in place of sharded ones, and the reverse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.dist import is_main_process
from torch import Tensor, nn
from torch.optim import Optimizer

from mmtransmamba.compat import is_partitioned, is_sharded


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Context in which the main process has every parameter whole, on the CPU.

    All processes must enter it, since they gather one parameter after the other. In the
    others, the parameters stay sharded, so none needs memory for the model. Nothing may
    be written to the parameters.
    """
    _reshard(model)
    shards, gathered = [], {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None or not (
                is_sharded(parameter) or is_partitioned(parameter)
            ):
                continue
            if parameter not in gathered:  # tied parameters occur twice
                gathered[parameter] = _whole(parameter)
            shards.append((module, name, parameter))
    try:
        for module, name, parameter in shards:
            if is_main_process():
                whole = nn.Parameter(gathered[parameter], parameter.requires_grad)
                module._parameters[name] = whole
        yield
    finally:
        for module, name, parameter in shards:
            module._parameters[name] = parameter


@contextmanager
def whole_states(optimizer: Optimizer) -> Iterator[None]:
    """The same for the states of an optimizer, such as Adam's averages."""
    states = {parameter: dict(state) for parameter, state in optimizer.state.items()}
    for parameter, state in states.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and is_sharded(value):
                whole = _whole(value)
                if is_main_process():
                    optimizer.state[parameter][key] = whole
    try:
        yield
    finally:
        optimizer.state.update(states)


def replace_parameters(
    optimizer: Optimizer, replacements: Mapping[nn.Parameter, nn.Parameter]
) -> None:
    """Give an optimizer other parameters, and shard its states as they are.

    Args:
        optimizer: Its states are of whole parameters, possibly on another device.
        replacements: A parameter for each of the optimizer's.
    """
    for group in optimizer.param_groups:
        group['params'] = [replacements[p] for p in group['params']]
    for parameter in list(optimizer.state):
        new = replacements[parameter]
        state = optimizer.state.pop(parameter)
        optimizer.state[new] = {k: _shard_like(v, new) for k, v in state.items()}


def _whole(shard: Any) -> Tensor | None:
    """A part as a whole; None in all processes but the main one."""
    if is_partitioned(shard):
        import deepspeed

        # On leaving its context, DeepSpeed releases even what it keeps whole.
        available = shard.ds_status.name == 'AVAILABLE'
        parts = deepspeed.zero.GatheredParameters([shard])
        with nullcontext() if available else parts:
            return shard.detach().cpu().clone() if is_main_process() else None
    whole = shard.detach().full_tensor()
    return whole.cpu() if is_main_process() else None


def _shard_like(value: Any, parameter: nn.Parameter) -> Any:
    from torch.distributed.tensor import distribute_tensor

    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    if not is_sharded(parameter):
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def _reshard(model: nn.Module) -> None:
    """Release parameters that FSDP keeps gathered after a forward pass."""
    for module in model.modules():
        if hasattr(module, 'reshard'):
            module.reshard()


@torch.no_grad()
def clip_sharded(
    parameters: list[nn.Parameter], max_norm: float, norm_type: float = 2.0
) -> Tensor:
    """``clip_grad_norm_`` for gradients of which some are sharded and some are whole.

    Args:
        parameters: With gradients; sharded ones on one mesh.
        max_norm: Largest norm of all gradients together.
        norm_type: Order of the norm.

    Returns:
        The norm before clipping, a scalar.
    """
    gradients = [parameter.grad for parameter in parameters]
    norms = [torch.linalg.vector_norm(grad, norm_type) for grad in gradients]
    norms = [norm.full_tensor() if is_sharded(norm) else norm for norm in norms]
    total = torch.linalg.vector_norm(torch.stack(norms), norm_type)
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for grad in gradients:
        (grad.to_local() if is_sharded(grad) else grad).mul_(factor)
    return total
