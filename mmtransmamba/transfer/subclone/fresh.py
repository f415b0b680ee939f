"""Named rules for parameters that are initialised afresh.

Each rule takes a shape and a generator and returns a float32 tensor. Its arguments
come from a weight map or from the config.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

KEEP = 'keep'


def resolve_std(std: float | str, shape: Sequence[int]) -> float:
    """The numerical value of ``std`` of :func:`normal`."""
    return math.prod(shape[1:]) ** -0.5 if std == 'fan_in' else std


def normal(
    shape: Sequence[int], generator: torch.Generator, std: float | str = 'fan_in'
) -> Tensor:
    """Normal distribution with mean 0.

    Args:
        std: Standard deviation; ``'fan_in'`` is ``1 / sqrt(fan_in)``, with which the
            outputs of a convolution have the variance of its inputs.
    """
    return torch.randn(shape, generator=generator) * resolve_std(std, shape)


def trunc_normal(
    shape: Sequence[int], generator: torch.Generator, std: float = 0.02
) -> Tensor:
    """Normal distribution with standard deviation ``std``, truncated at twice that."""
    values = torch.empty(shape)
    return torch.nn.init.trunc_normal_(
        values, std=std, a=-2 * std, b=2 * std, generator=generator
    )


def zeros(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """All 0."""
    return torch.zeros(shape)


def ones(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """All 1."""
    return torch.ones(shape)


def mamba_a_log(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """S4D-real: ``log(1..N)`` in every channel (Gu and Dao, "Mamba", 2023)."""
    return torch.arange(1.0, shape[-1] + 1).log().expand(tuple(shape)).clone()


def mamba_dt_weight(
    shape: Sequence[int], generator: torch.Generator, scale: float = 1.0
) -> Tensor:
    """Uniform within ``scale / sqrt(dt_rank)``; ``shape`` is ``[..., dt_rank]``."""
    bound = scale * shape[-1] ** -0.5
    return (2 * torch.rand(shape, generator=generator) - 1) * bound


def mamba_dt_bias(
    shape: Sequence[int],
    generator: torch.Generator,
    dt_min: float = 1e-3,
    dt_max: float = 0.1,
    dt_floor: float = 1e-4,
    scale: float = 1.0,
) -> Tensor:
    """The inverse softplus of dt values drawn log-uniformly from ``dt_min..dt_max``.

    Args:
        dt_min: Smallest dt drawn.
        dt_max: Largest dt drawn.
        dt_floor: Lower bound, applied after drawing.
        scale: Factor on the result, for a mixer that adds its bias more than once.
    """
    low, high = math.log(dt_min), math.log(dt_max)
    dt = torch.exp(low + (high - low) * torch.rand(shape, generator=generator))
    dt = dt.clamp_min(dt_floor)
    return scale * (dt + torch.log(-torch.expm1(-dt)))


RULES: dict[str, Callable[..., Tensor]] = {
    rule.__name__: rule
    for rule in (
        normal,
        trunc_normal,
        zeros,
        ones,
        mamba_a_log,
        mamba_dt_weight,
        mamba_dt_bias,
    )
}


def resolve_rule(
    key: str, default: Mapping[str, Any], change: str | Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Merge a rule with a config's changes to it, and check it.

    Args:
        key: Name of the entry, for messages.
        default: ``dict(type=..., **arguments)``.
        change: Arguments to change; with another ``type`` they replace all; ``'keep'``
            leaves the tensors as the model initialised them.

    Returns:
        The rule with all its arguments, or None for ``'keep'``.

    Raises:
        ValueError: Unknown type or argument.
    """
    if change == KEEP:
        return None
    if change is not None and not isinstance(change, Mapping):
        raise ValueError(f'fresh[{key!r}]={change!r} must be a dict or {KEEP!r}.')
    rule = dict(change or {})
    if rule.get('type', default['type']) == default['type']:
        rule = {**default, **rule}
    if rule['type'] not in RULES:
        raise ValueError(
            f'fresh[{key!r}]: type={rule["type"]!r} must be one of {sorted(RULES)}.'
        )
    parameters = inspect.signature(RULES[rule['type']]).parameters
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in ('shape', 'generator')
    }
    unknown = set(rule) - {'type'} - set(defaults)
    if unknown:
        raise ValueError(
            f'fresh[{key!r}]: {rule["type"]} takes no {sorted(unknown)}, only '
            f'{sorted(defaults)}.'
        )
    return {**defaults, **rule}


def describe_rule(rule: Mapping[str, Any], shape: Sequence[int]) -> str:
    """Short text of a rule for ``shape``, such as ``trunc_normal(std=0.02)``."""
    arguments = {name: value for name, value in rule.items() if name != 'type'}
    if 'std' in arguments:
        arguments['std'] = f'{resolve_std(arguments["std"], shape):.4g}'
    shown = ', '.join(f'{name}={value}' for name, value in arguments.items())
    return f'{rule["type"]}({shown})' if shown else rule['type']


def draw(
    rule: Mapping[str, Any], shape: Sequence[int], generator: torch.Generator
) -> Tensor:
    """A float32 tensor by a resolved rule."""
    arguments = {name: value for name, value in rule.items() if name != 'type'}
    return RULES[rule['type']](tuple(shape), generator, **arguments)
