"""A mixer's declarations about its initial values, used by the conversion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fill:
    """An initial value that comes neither from attention nor from a checkpoint.

    Attributes:
        detail: Description of the computation, for the report.
        make: Computes it from the tensor of a new mixer, the config of the hybrid and
            a seeded generator.
    """

    detail: str
    make: Callable[[Tensor, Any, torch.Generator], Tensor]


@dataclass(frozen=True)
class Init:
    """One way to initialise a mixer.

    A tensor is computed if ``fills`` names it. Otherwise it is copied from the
    attention or from a checkpoint if they have it, and else from a new mixer.

    Attributes:
        fields: Values of the mixer's fields for this initialisation.
        follows: Fields besides :attr:`DecoderMixer.follows` that a conversion copies
            from the teacher.
        from_attention: Whether the projections come from the attention that the mixer
            replaces, see :attr:`DecoderMixer.attention`.
        from_checkpoint: Whether a checkpoint of such mixers is accepted.
        blocks: Whether a narrower student inherits the top-left blocks of the teacher's
            tensors.
        fills: Initial values by name of a tensor of the mixer.
        calibrated: Whether :meth:`DecoderMixer.calibrate` is called afterwards, with
            statistics of the attention on text.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    follows: tuple[str, ...] = ()
    from_attention: bool = False
    from_checkpoint: bool = False
    blocks: bool = False
    fills: Mapping[str, Fill] = field(default_factory=dict)
    calibrated: bool = False


def without_blocks(inits: Mapping[str, Init]) -> dict[str, Init]:
    """Initialisations whose projections come from attention or are new."""
    return {name: init for name, init in inits.items() if not init.blocks}


ZEROS = Fill('zeros', lambda fresh, config, generator: torch.zeros_like(fresh))


def _last_tap(fresh: Tensor, config: Any, generator: torch.Generator) -> Tensor:
    weight = torch.zeros_like(fresh)
    weight[..., -1] = 1
    return weight


def _normal_taps(fresh: Tensor, config: Any, generator: torch.Generator) -> Tensor:
    return fresh.shape[-1] ** -0.5 * torch.randn(fresh.shape, generator=generator)


def _small(fresh: Tensor, config: Any, generator: torch.Generator) -> Tensor:
    std = 2**-2.5 * (2 / sum(fresh.shape)) ** 0.5
    return fresh * (std / config.initializer_range)


IDENTITY_CONV = {'conv1d.weight': Fill('identity', _last_tap), 'conv1d.bias': ZEROS}
"""A convolution that passes its input on (mmMamba)."""

NORMAL_CONV = {
    'conv1d.weight': Fill('normal, std taps^-0.5', _normal_taps),
    'conv1d.bias': ZEROS,
}
"""A convolution from a normal distribution, which TransMamba finds stable."""

SMALL_GATE = Fill('Xavier normal, gain 2^-2.5', _small)
"""A gate that starts small (mmMamba)."""
