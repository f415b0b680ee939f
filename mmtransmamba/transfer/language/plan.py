"""What each tensor of a hybrid decoder begins with."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmtransmamba.models.language import HYBRIDS
from mmtransmamba.transfer.language.mixers import (
    FreshMixer,
    Value,
    from_attention,
    from_mamba,
    mimic,
    normal_conv,
)
from mmtransmamba.transfer.language.sources import TensorSource, block_of
from mmtransmamba.transfer.subclone import Entry, SubcloneReport, Unused

_LAYER = re.compile(r'^(model\.layers\.(\d+)\.)(.*)$')
_MIXER = 'self_attn.'


@dataclass
class Step:
    """How one tensor of the hybrid is made.

    Attributes:
        entry: Its line of the report.
        make: Computes it.
    """

    entry: Entry
    make: Callable[[], Tensor]


class ConversionPlan:
    """The steps that make a hybrid decoder's weights, none of them done yet.

    Args:
        config: Config of the hybrid.
        teacher: The Transformer's tensors.
        init: Kind of initialisation of the mixers, see
            :func:`mmtransmamba.transfer.language.convert_lm`.
        seed: Seed of what is drawn.
        mamba: Tensors of a Mamba-1 model, for ``init='subclone'``.

    Raises:
        ValueError: A tensor has no source, or one that does not fit; the message
            names both.
    """

    def __init__(
        self,
        config: Any,
        teacher: TensorSource,
        init: str,
        seed: int = 0,
        mamba: TensorSource | None = None,
    ) -> None:
        self.config = config
        self.init = init
        self.seed = seed
        self._teacher = teacher
        self._mamba = mamba
        self._mamba_prefix = None if mamba is None else _mamba_prefix(mamba)
        self._fresh: dict[int, FreshMixer] = {}
        self.steps = [self._step(name, shape) for name, shape in target_shapes(config)]

    def __iter__(self) -> Iterator[tuple[str, Step]]:
        return iter((step.entry.target, step) for step in self.steps)

    def report(self) -> SubcloneReport:
        """The account of the conversion."""
        entries = [step.entry for step in self.steps]
        used = {entry.source for entry in entries}
        sources = [self._teacher] + ([] if self._mamba is None else [self._mamba])
        return SubcloneReport(
            weight_map=f'{self.config.model_type}, init={self.init}',
            layers=list(range(self.config.num_hidden_layers)),
            width='block' if self.init == 'subclone' else 'whole',
            seed=self.seed,
            entries=entries,
            unused=[
                Unused(name, source.shape(name))
                for source in sources
                for name in source
                if name not in used
            ],
        )

    def _step(self, name: str, shape: tuple[int, ...]) -> Step:
        found = _LAYER.match(name)
        if found and int(found[2]) in self.config.mamba_layers:
            prefix, layer, rest = found[1], int(found[2]), found[3]
            if rest.startswith(_MIXER):
                return self._mixer_step(name, rest[len(_MIXER) :], shape, prefix, layer)
        return self._inherited_step(name, shape)

    def _inherited_step(self, name: str, shape: tuple[int, ...]) -> Step:
        if name not in self._teacher:
            raise ValueError(
                f'The teacher has no {name}, which the student needs. It has '
                f'{list(self._teacher)[:3]} ({len(self._teacher)} tensors).'
            )
        have = self._teacher.shape(name)
        entry = Entry(name, shape, 'copied', math.prod(shape), name, have)
        if have == shape:
            return Step(entry, lambda: self._teacher[name])
        if self.init != 'subclone' or len(have) != len(shape):
            raise ValueError(
                f"{name}: the student's shape {shape} is not the teacher's {have}. "
                "Only init='subclone' takes parts."
            )
        if any(h < s for h, s in zip(have, shape, strict=True)):
            raise ValueError(
                f"{name}: the student's shape {shape} exceeds the teacher's {have}."
            )
        entry.action = 'block'
        entry.detail = f'[{", ".join(f"0:{size}" for size in shape)}]'
        return Step(entry, lambda: block_of(self._teacher[name], shape))

    def _mixer_step(
        self, name: str, tensor: str, shape: tuple[int, ...], prefix: str, layer: int
    ) -> Step:
        fresh = self._fresh.setdefault(layer, FreshMixer(self.config, layer, self.seed))
        value = self._mixer_value(tensor, shape, prefix, layer, fresh)
        if value is None:
            value = Value(lambda: fresh[tensor], detail='as in a new Mamba')
        entry = Entry(name, shape, 'fresh', rest=value.detail)
        if value.source is not None:
            entry = Entry(
                name,
                shape,
                'block' if value.detail else 'copied',
                value.inherited,
                value.source,
                detail=value.detail,
            )
        return Step(entry, value.make)

    def _mixer_value(
        self,
        tensor: str,
        shape: tuple[int, ...],
        prefix: str,
        layer: int,
        fresh: FreshMixer,
    ) -> Value | None:
        value = None
        if self.init in ('mimic', 'inherit', 'vkq'):
            value = from_attention(tensor, shape, prefix + _MIXER, self._teacher)
        if value is None and self.init == 'mimic':
            value = mimic(tensor, fresh, self.config)
        if self.init == 'subclone':
            if self._mamba is not None:
                value = from_mamba(
                    tensor,
                    shape,
                    f'{self._mamba_prefix}{layer}.mixer.',
                    self._mamba,
                    (
                        math.ceil(self.config.hidden_size / 16),
                        self.config.mamba_d_state,
                    ),
                )
            if value is None:
                seed = self.seed + zlib.crc32(f'{layer}.{tensor}'.encode())
                value = normal_conv(tensor, fresh, self.config, seed)
        return value


def target_shapes(config: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a hybrid's tensors; tied ones once."""
    family = config.model_type.removeprefix('hybrid_')
    with torch.device('meta'):
        model = HYBRIDS[family][2](config)
    tied = getattr(model, 'all_tied_weights_keys', {})
    return [
        (name, tuple(tensor.shape))
        for name, tensor in model.state_dict().items()
        if name not in tied
    ]


def _mamba_prefix(source: TensorSource) -> str:
    """What comes before the layer's number in a Mamba model's names."""
    for name in source:
        found = re.match(r'^(.*layers\.)\d+\.mixer\.', name)
        if found:
            return found[1]
    raise ValueError(
        'mamba_checkpoint holds no mixers under names such as '
        f"'backbone.layers.0.mixer.A_log'; it has {list(source)[:4]}."
    )


def _mamba_sizes(config: Any) -> tuple[int, int]:
    """dt rank and d_state of a hybrid's Mamba-1 mixers."""
    return math.ceil(config.hidden_size / 16), config.mamba_d_state
