"""An optimizer's states in the parts of DeepSpeed's ZeRO-3, and as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import get_rank, is_main_process
from torch import Tensor, nn
from torch.optim import Optimizer

States = dict[nn.Parameter, dict[str, Any]]


class ZeroOptimizer:
    """The optimizer of an ``OptimWrapper`` whose steps are those of an engine.

    Args:
        engine: DeepSpeed's, of ZeRO stage 3.
        groups: The parameters of each group of the optimizer, in its own order. ZeRO
            empties the groups and steps with flat parts.
    """

    def __init__(self, engine: Any, groups: list[list[nn.Parameter]]) -> None:
        self.engine = engine
        self._groups = groups
        self._whole: dict[str, Any] | None = None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups with their learning rates, which schedulers change."""
        return self.engine.optimizer.param_groups

    def step(self) -> None:
        """Clip the averaged gradients, and change the weights with them."""
        self.engine.step()

    def zero_grad(self) -> None:
        """Nothing: the engine starts anew after each step."""

    def state_dict(self) -> dict[str, Any]:
        """The state dict of a whole optimizer, inside :meth:`whole`.

        Raises:
            RuntimeError: Outside of it.
        """
        if self._whole is None:
            raise RuntimeError('each process holds a part of the optimizer only')
        return self._whole

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Context in which the main process has the states whole, on the CPU."""
        self._whole = self._gather()
        try:
            yield
        finally:
            self._whole = None

    def _gather(self) -> dict[str, Any]:
        zero = self.engine.optimizer
        states, groups, count = {}, [], 0
        for group, parameters in zip(self.param_groups, self._groups, strict=True):
            numbers = list(range(count, count + len(parameters)))
            count += len(parameters)
            groups.append(dict(group, params=numbers))
            for number, parameter in zip(numbers, parameters, strict=True):
                state = _gathered(zero, parameter)
                if state and is_main_process():
                    states[number] = state
        return dict(state=states, param_groups=groups)


def take_states(optimizer: Optimizer) -> States:
    """Remove the states of an optimizer, and return them."""
    states = {parameter: state for parameter, state in optimizer.state.items()}
    optimizer.state.clear()
    return states


def give_states(zero: Any, states: States) -> None:
    """Give whole states to a sharded optimizer.

    Args:
        zero: DeepSpeed's optimizer of ZeRO stage 3.
        states: States by parameter, the same in all processes. Parameters without one
            get zeros where others of their part have some.
    """
    for parameter, state in states.items():
        own = _state_of(zero, parameter)
        flat = _flat_of(zero, parameter)
        for key, value in state.items():
            if not isinstance(value, Tensor) or value.shape != parameter.ds_shape:
                # Steps taken: one number for all parameters of a part.
                own[key] = max(own.get(key, value), value)
                continue
            if key not in own:
                own[key] = torch.zeros_like(flat)
            zero.set_local_hp_param(_part(value, parameter), parameter, key)


def _gathered(zero: Any, parameter: nn.Parameter) -> dict[str, Any]:
    """The state of a parameter, gathered from all processes."""
    if not parameter.requires_grad:
        return {}
    found = {}
    flat = _flat_of(zero, parameter)
    for key, value in _state_of(zero, parameter).items():
        if isinstance(value, Tensor) and value.shape == flat.shape:
            value = zero.get_full_hp_param(parameter, key)
        if is_main_process():
            found[key] = value.cpu().clone() if isinstance(value, Tensor) else value
    return found


def _flat_of(zero: Any, parameter: nn.Parameter) -> Tensor:
    """The flat part of this process that contains a part of the parameter."""
    number, _, _ = zero.grad_position[zero.get_param_id(parameter)]
    return zero.fp32_partitioned_groups_flat[number]


def _state_of(zero: Any, parameter: nn.Parameter) -> dict[str, Any]:
    return zero.optimizer.state[_flat_of(zero, parameter)]


def _part(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """This process's part of a whole tensor; the last part ends with zeros."""
    size = parameter.ds_tensor.numel()
    part = value.flatten()[get_rank() * size : (get_rank() + 1) * size]
    return nn.functional.pad(part, (0, size - part.numel()))
