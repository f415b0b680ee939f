"""First values of a Mamba mixer, from the attention it replaces or a Mamba model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.folders.sources import TensorSource
from mmtransmamba.models.language.mixers import MIXERS
from mmtransmamba.transfer.language.blocks import (
    block_of,
    cat_blocks,
    others_have,
)
from mmtransmamba.transfer.language.student import (
    has_in_bias,
    has_out_bias,
    has_qk_norm,
)

# Tensor of the mixer, and of the attention: by value, key and query.
_PROJECTIONS = {'x_proj': 'v_proj', 'B_proj': 'k_proj', 'C_proj': 'q_proj'}
_NORMS = {'B_norm.weight': 'k_norm.weight', 'C_norm.weight': 'q_norm.weight'}
_OUTPUTS = ('o_proj', 'dense')


@dataclass
class Value:
    """A first value for one tensor of a mixer.

    Attributes:
        make: Computes it.
        source: Name of the tensor that it comes from, None if from none.
        inherited: Number of its values that come from there.
        detail: How it is made, or which part is taken.
    """

    make: Callable[[], Tensor]
    source: str | None = None
    inherited: int = 0
    detail: str = ''


class FreshMixer:
    """A mixer as a new model of its kind has it, made when it is asked for.

    Args:
        config: Config of the hybrid.
        layer: Number of the layer.
        seed: Seed of the random values.
    """

    def __init__(self, config: Any, layer: int, seed: int) -> None:
        self._make = config, layer, seed
        self._state: dict[str, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        if self._state is None:
            config, layer, seed = self._make
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed * 100_003 + layer)
                mixer = MIXERS[config.mamba_mixer](config, layer)
                for module in mixer.modules():
                    if isinstance(module, nn.Linear) and module is not getattr(
                        mixer, 'dt_proj', None
                    ):
                        nn.init.normal_(module.weight, std=config.initializer_range)
                        if module.bias is not None:
                            nn.init.zeros_(module.bias)
            self._state = mixer.state_dict()
        return self._state[name]

    def forget(self) -> None:
        """Free its memory; what is asked for later is made again."""
        self._state = None


def from_attention(
    name: str,
    shape: tuple[int, ...],
    attention: str,
    source: TensorSource,
    config: Any,
) -> Value | None:
    """v, k, q and the output projection as x, B, C and out_proj, with their biases.

    Args:
        name: Tensor of the mixer.
        shape: Its shape.
        attention: Beginning of the names of the attention's tensors.
        source: The teacher's tensors.
        config: Config of the hybrid.

    Returns:
        None for what attention does not have.

    Raises:
        ValueError: The attention's tensor has another shape, or is not there.
    """
    module, _, leaf = name.partition('.')
    candidates = []
    if module in _PROJECTIONS:
        candidates = [f'{attention}{_PROJECTIONS[module]}.{leaf}']
    elif module == 'out_proj':
        candidates = [f'{attention}{output}.{leaf}' for output in _OUTPUTS]
    elif name in _NORMS:
        candidates = [attention + _NORMS[name]]
    origin = next((c for c in candidates if c in source), None)
    if origin is None:
        if candidates and _attention_has(module, leaf, config, candidates, source):
            raise ValueError(
                f'The teacher has no {" or ".join(candidates)}, of which {name} in '
                f'its place is made. It has {list(source)[:3]} ({len(source)} '
                'tensors).'
            )
        return None
    if source.shape(origin) != shape:
        raise ValueError(
            f'{name} {shape} cannot be seeded from {origin} {source.shape(origin)}: '
            "the mixer must have the attention's heads. A narrower student needs "
            "init='subclone'."
        )
    return Value(lambda: source[origin], origin, math.prod(shape))


def _attention_has(
    module: str, leaf: str, config: Any, candidates: list[str], source: TensorSource
) -> bool:
    """Whether a teacher of this family must have one of some tensors."""
    if module in ('B_norm', 'C_norm'):
        expected = has_qk_norm(config)
    elif leaf == 'bias':
        expected = (has_out_bias if module == 'out_proj' else has_in_bias)(config)
    else:
        expected = True
    return expected or any(others_have(source, name) for name in candidates)


def mimic(name: str, fresh: FreshMixer, config: Any) -> Value | None:
    r"""mmMamba's seeding of what attention does not have.

    The decay :math:`\gamma` starts close to 1 (dt without input dependence, A = -e),
    the convolution passes its input on, the gate starts small.
    """
    if name == 'conv1d.weight':
        taps = config.mamba_d_conv

        def last_tap() -> Tensor:
            weight = torch.zeros_like(fresh[name])
            weight[:, 0, taps - 1] = 1
            return weight

        return Value(last_tap, detail='identity')
    if name in ('conv1d.bias', 'dt_proj.weight'):
        return Value(lambda: torch.zeros_like(fresh[name]), detail='zeros')
    if name == 'A_log':
        return Value(lambda: torch.ones_like(fresh[name]), detail='ones, A = -e')
    if name == 'z_proj.weight':

        def small() -> Tensor:
            weight = fresh[name]
            std = 2**-2.5 * (2 / sum(weight.shape)) ** 0.5
            return weight * (std / config.initializer_range)

        return Value(small, detail='Xavier normal, gain 2^-2.5')
    return None


def normal_conv(name: str, fresh: FreshMixer, config: Any, seed: int) -> Value | None:
    """A convolution from a normal distribution, which TransMamba finds stable."""
    if name == 'conv1d.bias':
        return Value(lambda: torch.zeros_like(fresh[name]), detail='zeros')
    if name != 'conv1d.weight':
        return None
    std = config.mamba_d_conv**-0.5

    def draw() -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return std * torch.randn(fresh[name].shape, generator=generator)

    return Value(draw, detail=f'normal, std {std:.3g}')


def from_mamba(
    name: str,
    shape: tuple[int, ...],
    mixer: str,
    source: TensorSource,
    sizes: tuple[int, int],
) -> Value | None:
    """The tensor of a published Mamba-1 model, or the block of it that fits.

    The convolution is not taken (TransMamba, Section 3.2).

    Args:
        name: Tensor of the mixer.
        shape: Its shape.
        mixer: Beginning of the names of the Mamba model's mixer.
        source: Its tensors.
        sizes: The mixer's dt rank and d_state.

    Raises:
        ValueError: The Mamba model is smaller than the student, or lacks the tensor.
    """
    origin = mixer + name
    if name.startswith('conv1d'):
        return None
    if origin not in source:
        # Models of this kind need not have biases beside that of dt.
        if name.endswith('proj.bias') and not others_have(source, origin):
            return None
        raise ValueError(
            f"The Mamba checkpoint has no {origin}, of which the student's {name} is "
            f'made. It has {list(source)[:3]} ({len(source)} tensors).'
        )
    have = source.shape(origin)
    if any(h < s for h, s in zip(have, shape, strict=True)):
        raise ValueError(
            f'{origin} {have} of the Mamba checkpoint is smaller than the '
            f"student's {name} {shape}."
        )
    if have == shape:
        return Value(lambda: source[origin], origin, math.prod(shape))
    if name == 'in_proj.weight':
        parts = [(have[0] // 2, shape[0] // 2)] * 2
    elif name == 'x_proj.weight':
        dt_rank, d_state = sizes
        rank = source.shape(mixer + 'dt_proj.weight')[1]
        state = source.shape(mixer + 'A_log')[1]
        parts = [(rank, dt_rank), (state, d_state), (state, d_state)]
    else:
        return Value(
            lambda: block_of(source[origin], shape),
            origin,
            math.prod(shape),
            f'[{", ".join(f"0:{s}" for s in shape)}]',
        )
    return Value(
        lambda: cat_blocks(source[origin], parts, shape[1]),
        origin,
        math.prod(shape),
        f'{" + ".join(f"0:{taken} of {size}" for size, taken in parts)} rows',
    )
