"""A frozen teacher on another device than its student."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn


def device_of_process(given: str | Sequence[str] | None) -> torch.device | None:
    """The teacher's device in this process.

    Args:
        given: A device for all processes, one for each process of a machine, in the
            order of ``LOCAL_RANK``, or None for the student's.

    Raises:
        ValueError: There are too few, or one is not a device.
    """
    if given is None:
        return None
    if not isinstance(given, str):
        rank = int(os.environ.get('LOCAL_RANK', 0))
        if rank >= len(given):
            raise ValueError(
                f'model.teacher_device={list(given)} has no device for process {rank}; '
                'give one for each process of a machine, or one for all'
            )
        given = given[rank]
    try:
        return torch.device(given)
    except RuntimeError as error:
        raise ValueError(
            f'model.teacher_device={given!r} is not a device; accepted are for '
            "example 'cuda:1', and ['cuda:4', 'cuda:5', …] for several processes"
        ) from error


def moved(value: Any, device: torch.device) -> Any:
    """A copy of a value with its tensors on a device.

    Tensors in mappings, sequences and dataclasses are found; other objects, such as a
    cache of keys, stay as they are.
    """
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, (type, Mapping)):
        names = [field.name for field in fields(value) if field.init]
        return replace(value, **{n: moved(getattr(value, n), device) for n in names})
    if isinstance(value, Mapping):
        pairs = {key: moved(part, device) for key, part in value.items()}
        return pairs if type(value) is dict else type(value)(**pairs)
    if type(value) in (list, tuple):
        return type(value)(moved(part, device) for part in value)
    return value


def place_apart(teacher: nn.Module, device: torch.device) -> None:
    """Make a teacher run on a device, whatever the device of its inputs.

    Its outputs are on the device of the inputs again. Its weights are moved when those
    of its distiller are.
    """
    homes: list[torch.device] = []

    def enter(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple:
        homes.append(_device_in((args, kwargs)) or device)
        return moved(args, device), moved(kwargs, device)

    def leave(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        return moved(output, homes.pop())

    teacher.register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
    teacher.register_forward_hook(leave, with_kwargs=True)


def _device_in(value: Any) -> torch.device | None:
    """The device of the first tensor."""
    if isinstance(value, Tensor):
        return value.device
    if isinstance(value, Mapping):
        value = list(value.values())
    for part in value if isinstance(value, (list, tuple)) else ():
        found = _device_in(part)
        if found is not None:
            return found
    return None
