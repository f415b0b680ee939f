"""What each tensor of a hybrid decoder begins with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.checkpoint import CheckpointError, read_state_dict
from mmtransmamba.models.fit import check_depth
from mmtransmamba.models.folders.lm import read_lm
from mmtransmamba.models.folders.sources import (
    StateDictSource,
    TensorSource,
    open_folder,
)
from mmtransmamba.models.language import causal_lm_class
from mmtransmamba.models.language.mixers import Init, build_mixer, mixer_class
from mmtransmamba.models.values import fault_of
from mmtransmamba.transfer.language.blocks import block_of
from mmtransmamba.transfer.language.seeding import MixerSeeding
from mmtransmamba.transfer.language.student import hybrid_config, init_of
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

    def tensor(self) -> Tensor:
        """The tensor, on the CPU.

        Raises:
            CheckpointError: What it is made of has NaN or infinity.
        """
        made = self.make().detach().cpu()
        fault = fault_of(made)
        if fault is not None:
            name = self.entry.source or self.entry.target
            raise CheckpointError(f'The weights of the teacher: {name} has {fault}.')
        return made


class ConversionPlan:
    """The steps that make a hybrid decoder's weights, none of them done yet.

    Args:
        config: Config of the hybrid.
        teacher: The Transformer's tensors.
        init: Kind of initialisation of the mixers, see
            :func:`mmtransmamba.transfer.language.convert_lm`.
        seed: Seed of what is drawn.
        mamba: Tensors of a Mamba-1 model, for ``init='subclone'``.
        shapes: Names and shapes of the tensors to make; all of the model by default.

    Raises:
        ValueError: A tensor has no source, or one that does not fit; the message
            names both.
        CheckpointError: The teacher has weights of integers.
    """

    def __init__(
        self,
        config: Any,
        teacher: TensorSource,
        init: str,
        seed: int = 0,
        mamba: TensorSource | None = None,
        shapes: Sequence[tuple[str, tuple[int, ...]]] | None = None,
    ) -> None:
        self.config = config
        self.init = init
        self.seed = seed
        self._teacher = teacher
        self._mamba = mamba
        self._mamba_prefix = None if mamba is None else _mamba_prefix(mamba)
        self._blocks = init_of(config.mixer['type'], init).blocks
        if shapes is None:
            shapes = target_shapes(self.model_class, config)
        self._seeding = {
            layer: self._seed(layer, shapes) for layer in config.mamba_layers
        }
        self.steps = [self._step(name, shape) for name, shape in shapes]
        check_kinds(self.steps, *([teacher] if mamba is None else [teacher, mamba]))

    def __len__(self) -> int:
        return len(self.steps)

    def tensors(self, prefix: str = '') -> Iterator[tuple[str, Tensor]]:
        """Make the hybrid's tensors, one at a time.

        They are in the teacher's dtype, the SSM parameters in float32, and share no
        memory with the teacher.

        Args:
            prefix: Only those whose names begin so.
        """
        steps = [step for step in self.steps if step.entry.target.startswith(prefix)]
        for layer, group in groupby(steps, _layer_of):
            for step in group:
                name = step.entry.target
                wanted = torch.float32 if self._keeps_float32(name) else self.dtype
                tensor = step.tensor().to(wanted)
                yield name, tensor.contiguous().clone()
            if layer in self._seeding:
                self._seeding[layer].fresh.forget()

    @property
    def model_class(self) -> type[nn.Module]:
        """Class of the hybrid."""
        return causal_lm_class(self.config)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The teacher's."""
        return self._teacher['model.embed_tokens.weight'].dtype

    def mixer(self, layer: int) -> nn.Module:
        """The mixer of one layer, without the rest of the hybrid."""
        prefix = f'model.layers.{layer}.{_MIXER}'
        with torch.device('meta'):
            mixer = build_mixer(self.config, layer)
        state = {n.removeprefix(prefix): t for n, t in self.tensors(prefix)}
        mixer.load_state_dict(state, assign=True)
        return mixer.eval()

    def report(self) -> SubcloneReport:
        """The account of the conversion."""
        entries = [step.entry for step in self.steps]
        used = {entry.source for entry in entries}
        sources = [self._teacher] + ([] if self._mamba is None else [self._mamba])
        return SubcloneReport(
            weight_map=f'{self.config.model_type}, init={self.init}',
            layers=list(range(self.config.num_hidden_layers)),
            width='block' if self._blocks else 'whole',
            seed=self.seed,
            entries=entries,
            unused=[
                Unused(name, source.shape(name))
                for source in sources
                for name in source
                if name not in used
            ],
        )

    def _seed(
        self, layer: int, shapes: Sequence[tuple[str, tuple[int, ...]]]
    ) -> MixerSeeding:
        prefix = f'model.layers.{layer}.{_MIXER}'
        own = {n.removeprefix(prefix): s for n, s in shapes if n.startswith(prefix)}
        return MixerSeeding(
            self.config,
            layer,
            self.init,
            self.seed,
            own,
            self._teacher,
            prefix,
            self._mamba,
            f'{self._mamba_prefix}{layer}.mixer.',
        )

    def _mixer_part(self, name: str) -> tuple[int, str] | None:
        """Layer and name within its mixer of a tensor, None for any other tensor."""
        found = _LAYER.match(name)
        if not found or int(found[2]) not in self.config.mamba_layers:
            return None
        if not found[3].startswith(_MIXER):
            return None
        return int(found[2]), found[3].removeprefix(_MIXER)

    def _keeps_float32(self, name: str) -> bool:
        part = self._mixer_part(name)
        if part is None:
            return False
        layer, tensor = part
        kind = self.config.mixer_of(layer)['type']
        return mixer_class(kind).keeps_float32(tensor)

    def _step(self, name: str, shape: tuple[int, ...]) -> Step:
        part = self._mixer_part(name)
        if part is None:
            return inherited_step(name, shape, self._teacher, self._blocks)
        layer, tensor = part
        value = self._seeding[layer].value(tensor)
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


def check_kinds(steps: Sequence[Step], *sources: TensorSource) -> None:
    """Refuse integers, of a quantised model for example, as weights.

    Raises:
        CheckpointError: A tensor is made of some; the message names them.
    """
    for name in (step.entry.source for step in steps):
        for source in sources:
            if name in source and not source.is_real(name):
                raise CheckpointError(
                    f'The weights of the teacher: {name} consists of integers. Convert '
                    'a model that is not quantised.'
                )


def inherited_step(
    name: str, shape: tuple[int, ...], teacher: TensorSource, blocks: bool
) -> Step:
    """The step that takes a tensor from the teacher, or the block of it that fits.

    Args:
        name: The tensor, in student and teacher.
        shape: Its shape in the student.
        teacher: The teacher's tensors.
        blocks: Whether blocks are taken.

    Raises:
        ValueError: The teacher has no such tensor, or one that does not fit.
    """
    if name not in teacher:
        raise ValueError(
            f'The teacher has no {name}, which the student needs. It has '
            f'{list(teacher)[:3]} ({len(teacher)} tensors).'
        )
    have = teacher.shape(name)
    entry = Entry(name, shape, 'copied', math.prod(shape), name, have)
    if have == shape:
        return Step(entry, lambda: teacher[name])
    if not blocks or len(have) != len(shape):
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
    return Step(entry, lambda: block_of(teacher[name], shape))


def _layer_of(step: Step) -> int | None:
    found = _LAYER.match(step.entry.target)
    return found and int(found[2])


def plan_conversion(
    teacher: nn.Module | str | Path,
    layers: str | Sequence[int] = 'evenly',
    ratio: float = 1.0,
    init: str = 'mimic',
    seed: int = 0,
    mamba_checkpoint: str | Path | None = None,
    **fields: Any,
) -> ConversionPlan:
    """Check a conversion and say what it would do.

    See :func:`~mmtransmamba.transfer.language.convert_lm`.
    """
    config, source = read_lm(teacher)
    check_depth(config, source, 'The teacher')
    student = hybrid_config(config, layers, ratio, init, **fields)
    mamba = open_mamba(mamba_checkpoint, init_of(student.mixer['type'], init))
    return ConversionPlan(student, source, init, seed, mamba)


def open_mamba(checkpoint: str | Path | None, init: Init) -> TensorSource | None:
    """The tensors of a Mamba-1 model in a file or folder, None without one.

    Raises:
        ValueError: The initialisation has no use for them.
    """
    if checkpoint is None:
        return None
    if not init.from_checkpoint:
        raise ValueError(
            "mamba_checkpoint needs init='subclone' with a mixer that has checkpoints, "
            'such as Mamba.'
        )
    path = Path(checkpoint)
    return (
        open_folder(path) if path.is_dir() else StateDictSource(read_state_dict(path))
    )


def target_shapes(
    model_class: type[nn.Module], config: Any
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a model's tensors; tied ones once.

    Args:
        model_class: A transformers class.
        config: Its config.
    """
    with torch.device('meta'):
        model = model_class(config)
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
