"""Initial values of a mixer, as declared by its class.

They come from the attention that it replaces, from a checkpoint with such mixers, or
from a new mixer.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.folders.sources import TensorSource
from mmtransmamba.models.language.mixers import (
    AttentionMixer,
    build_mixer,
    mixer_class_of,
)
from mmtransmamba.transfer.convert.blocks import (
    block_of,
    cat_blocks,
    others_have,
)
from mmtransmamba.transfer.convert.hybrid_config import (
    has_in_bias,
    has_out_bias,
    has_qk_norm,
)
from mmtransmamba.transfer.convert.spec import Conversion


@dataclass
class Value:
    """An initial value for one tensor of a mixer.

    Attributes:
        make: Function that computes it.
        source: Name of the tensor that it comes from, None if there is none.
        inherited: Number of its values that come from that tensor.
        detail: How it is computed, or which part is copied.
    """

    make: Callable[[], Tensor]
    source: str | None = None
    inherited: int = 0
    detail: str = ''


class FreshMixer:
    """A mixer with the initialisation of its class, created on demand.

    It has all heads, see :meth:`AttentionMixer.whole`.

    Args:
        config: Config of the hybrid.
        layer: Number of the layer.
        seed: Seed of the random values.
    """

    def __init__(self, config: Any, layer: int, seed: int) -> None:
        self.layer = layer
        self._make = config, layer, seed
        self._state: dict[str, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        if self._state is None:
            config, layer, seed = self._make
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed * 100_003 + layer)
                mixer = build_mixer(config, layer, whole=True)
                own = [getattr(mixer, name, None) for name in mixer.own_init]
                # SigLIP's config does not have it.
                std = getattr(config, 'initializer_range', 0.02)
                for module in mixer.modules():
                    if isinstance(module, nn.Linear) and module not in own:
                        nn.init.normal_(module.weight, std=std)
                        if module.bias is not None:
                            nn.init.zeros_(module.bias)
            self._state = mixer.state_dict()
        return self._state[name]

    def forget(self) -> None:
        """Free its memory; later requests create it again."""
        self._state = None


class MixerSeeding:
    """Chooses the initial values of one layer's mixer.

    Args:
        config: Config of the hybrid.
        layer: Number of the layer.
        conversion: Initialisation and seed.
        shapes: Shapes of the mixer's tensors, by their names in it.
        teacher: The teacher's tensors.
        attention: Prefix of the attention's tensor names.
        checkpoint: Tensors of a model with such mixers, or None.
        prefix: Prefix of the mixer's tensor names in the checkpoint.
    """

    def __init__(
        self,
        config: Any,
        layer: int,
        conversion: Conversion,
        shapes: dict[str, tuple[int, ...]],
        teacher: TensorSource,
        attention: str,
        checkpoint: TensorSource | None = None,
        prefix: str = '',
    ) -> None:
        self.fresh = FreshMixer(config, layer, conversion.seed)
        self._config = config
        self._seed = conversion.seed, layer
        self._shapes = shapes
        self._teacher = teacher, attention
        self._checkpoint = checkpoint, prefix
        self._class: type[AttentionMixer] = mixer_class_of(config, layer)
        self._init = self._class.inits[conversion.init]

    def value(self, name: str) -> Value:
        """The initial value of a tensor of the mixer.

        Raises:
            ValueError: Its source is missing, or has another shape.
        """
        value = None
        if name in self._init.fills:
            return self._filled(name)
        if self._init.from_attention:
            value = from_attention(
                self._class,
                name,
                self._shapes[name],
                self._teacher[1],
                self._teacher[0],
                self._config,
            )
        source, prefix = self._checkpoint
        if value is None and source is not None and self._init.from_checkpoint:
            value = from_checkpoint(self._class, name, self._shapes, prefix, source)
        if value is None:
            value = Value(
                lambda: self._mixer.own_part(name, self.fresh[name]),
                detail='as in a new mixer',
            )
        return value

    @cached_property
    def _mixer(self) -> AttentionMixer:
        """The layer's mixer, without values."""
        with torch.device('meta'):
            return build_mixer(self._config, self.fresh.layer)

    def _filled(self, name: str) -> Value:
        fill, (seed, layer) = self._init.fills[name], self._seed

        def make() -> Tensor:
            own = seed + zlib.crc32(f'{layer}.{name}'.encode())
            generator = torch.Generator().manual_seed(own)
            made = fill.make(self.fresh[name], self._config, generator)
            return self._mixer.own_part(name, made)

        return Value(make, detail=fill.detail)


def from_attention(
    mixer: type[AttentionMixer],
    name: str,
    shape: tuple[int, ...],
    attention: str,
    source: TensorSource,
    config: Any,
) -> Value | None:
    """The attention's tensor that a mixer's class declares as a source.

    Args:
        mixer: The class.
        name: Tensor of the mixer.
        shape: Its shape.
        attention: Prefix of the attention's tensor names.
        source: The teacher's tensors.
        config: Config of the hybrid.

    Returns:
        The tensor; None if attention has no counterpart.

    Raises:
        ValueError: The attention's tensor is missing, or has another shape.
    """
    module, _, leaf = name.partition('.')
    modules = mixer.attention.get(module, ())
    candidates = [f'{attention}{other}.{leaf}' for other in modules]
    origin = next((c for c in candidates if c in source), None)
    if origin is None:
        if candidates and _attention_has(modules[0], leaf, config, candidates, source):
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
    if module in ('q_norm', 'k_norm'):
        expected = has_qk_norm(config)
    elif leaf == 'bias':
        expected = (has_out_bias if module == 'o_proj' else has_in_bias)(config)
    else:
        expected = True
    return expected or any(others_have(source, name) for name in candidates)


def from_checkpoint(
    mixer: type[AttentionMixer],
    name: str,
    shapes: dict[str, tuple[int, ...]],
    prefix: str,
    source: TensorSource,
) -> Value | None:
    """The tensor of a published model with such mixers, or the block of it that fits.

    Args:
        mixer: The mixer's class.
        name: Tensor of the mixer.
        shapes: Shapes of the mixer's tensors.
        prefix: Prefix of the mixer's tensor names in the model.
        source: Its tensors.

    Raises:
        ValueError: The Mamba model is smaller than the student, or lacks the tensor.
    """
    origin, shape = prefix + name, shapes[name]
    if origin not in source:
        # Models of this kind may lack biases other than that of dt.
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
    if name not in mixer.stacked:
        return Value(
            lambda: block_of(source[origin], shape),
            origin,
            math.prod(shape),
            f'[{", ".join(f"0:{s}" for s in shape)}]',
        )
    sizes_of = mixer.stacked[name]
    there = sizes_of(lambda other: source.shape(prefix + other))
    parts = list(zip(there, sizes_of(shapes.__getitem__), strict=True))
    return Value(
        lambda: cat_blocks(source[origin], parts, shape[1]),
        origin,
        math.prod(shape),
        f'{" + ".join(f"0:{taken} of {size}" for size, taken in parts)} rows',
    )
