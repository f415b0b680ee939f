"""The plan of a conversion: how each tensor of a hybrid is computed."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.checkpoint import CheckpointError, read_state_dict
from mmtransmamba.models.folders.pretrained import Pretrained
from mmtransmamba.models.folders.sources import (
    StateDictSource,
    TensorSource,
    open_folder,
)
from mmtransmamba.models.language import causal_lm_class
from mmtransmamba.models.language.mixers import build_mixer, mixer_class_of
from mmtransmamba.models.values import fault_of
from mmtransmamba.transfer.convert.blocks import block_of
from mmtransmamba.transfer.convert.hybrid_config import hybrid_config
from mmtransmamba.transfer.convert.layer_ranking import LayerRanking
from mmtransmamba.transfer.convert.proof import Proof
from mmtransmamba.transfer.convert.seeding import MixerSeeding
from mmtransmamba.transfer.convert.spec import Conversion
from mmtransmamba.transfer.subclone import Entry, SubcloneReport, Unused


@dataclass
class Step:
    """How one tensor of the hybrid is computed.

    Attributes:
        entry: Its line of the report.
        make: Function that computes it.
    """

    entry: Entry
    make: Callable[[], Tensor]

    def tensor(self) -> Tensor:
        """The tensor, on the CPU.

        Raises:
            CheckpointError: Its source has NaN or infinity.
        """
        made = self.make().detach().cpu()
        fault = fault_of(made)
        if fault is not None:
            name = self.entry.source or self.entry.target
            raise CheckpointError(f'The weights of the teacher: {name} has {fault}.')
        return made


class Plan(ABC):
    """The steps that compute a hybrid's weights, before any of them is done.

    Attributes:
        teacher: The model that is converted.
        conversion: The requested conversion.
        config: Config of the hybrid.
        ranking: The measurement by which the layers were chosen, if there is one.
        proof: Comparison of hybrid and teacher, if there is calibration text.
    """

    config: Any
    ranking: LayerRanking | None = None
    proof: Proof | None = None

    def __init__(self, teacher: Pretrained, conversion: Conversion) -> None:
        self.teacher = teacher
        self.conversion = conversion
        self._checkpoint = open_checkpoint(conversion.mamba_checkpoint)

    @classmethod
    @abstractmethod
    def of(cls, teacher: Pretrained, conversion: Conversion) -> Plan:
        """The plan of a whole model.

        Raises:
            ValueError: The family, a layer, a field or a shape does not fit; a tensor
                has no source. The message names it.
            CheckpointError: The teacher has integer weights.
        """

    @property
    @abstractmethod
    def model_class(self) -> type[nn.Module]:
        """Class of the hybrid."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of tensors."""

    @abstractmethod
    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Compute the hybrid's tensors, one at a time.

        They are in the dtype of the teacher's embeddings, the SSM parameters in
        float32, and share no memory with the teacher.
        """

    @abstractmethod
    def report(self) -> SubcloneReport:
        """The report on the conversion."""

    def unused(self, entries: Sequence[Entry]) -> list[Unused]:
        """The tensors of teacher and checkpoint that no entry uses."""
        used = {entry.source for entry in entries}
        return [
            Unused(name, source.shape(name))
            for source in filter(None, [self._source, self._checkpoint])
            for name in source
            if name not in used
        ]

    @property
    def _source(self) -> TensorSource:
        return self.teacher.source


class LayersPlan(Plan):
    """Plan for a model whose layers are listed under one name.

    Args:
        teacher, conversion: See :class:`Plan`.
        config: Config of the hybrid.
        source: The teacher's tensors under the hybrid's names.
        shapes: Names and shapes of the tensors to compute.
        mixers: Prefix of the names of a mixer's tensors, with ``{i}`` for the layer.
    """

    def __init__(
        self,
        teacher: Any,
        conversion: Conversion,
        config: Any,
        source: TensorSource,
        shapes: Sequence[tuple[str, tuple[int, ...]]],
        mixers: str,
    ) -> None:
        super().__init__(teacher, conversion)
        self.config = config
        self._tensors = source
        self._mixers = mixers
        pattern = re.escape(mixers).replace(r'\{i\}', r'(\d+)')
        self._mixer_tensor = re.compile(f'{pattern}(.*)')
        self._prefix = self._checkpoint and _prefix_of(self._checkpoint)
        self._seeding = {
            layer: self._seed(layer, shapes) for layer in config.mamba_layers
        }
        self.steps = [self._step(name, shape) for name, shape in shapes]
        self.calibrated: dict[str, Tensor] = {}
        check_kinds(self.steps, *filter(None, [source, self._checkpoint]))

    @property
    def _source(self) -> TensorSource:
        return self._tensors

    def mixer_prefix(self, layer: int) -> str:
        """Prefix of the names of one mixer's tensors."""
        return self._mixers.replace('{i}', str(layer))

    def __len__(self) -> int:
        return len(self.steps)

    def tensors(self, prefix: str = '') -> Iterator[tuple[str, Tensor]]:
        """See :meth:`Plan.tensors`.

        Args:
            prefix: Only tensors whose names start with this prefix are computed.
        """
        steps = [step for step in self.steps if step.entry.target.startswith(prefix)]
        for layer, group in groupby(steps, self._layer_of):
            for step in group:
                name = step.entry.target
                wanted = torch.float32 if self._keeps_float32(name) else self.dtype
                tensor = self.calibrated.get(name)
                tensor = (step.tensor() if tensor is None else tensor).to(wanted)
                yield name, tensor.contiguous().clone()
            if layer in self._seeding:
                self._seeding[layer].fresh.forget()

    def calibrate(self, mixers: Mapping[int, nn.Module], detail: str) -> None:
        """Replace the initial values of mixers by values fitted to data.

        Args:
            mixers: Fitted mixers by layer.
            detail: How they were fitted, for the report.
        """
        self.calibrated = values = {
            self.mixer_prefix(i) + name: value.detach().cpu()
            for i, mixer in mixers.items()
            for name, value in mixer.state_dict().items()
        }
        for entry in (step.entry for step in self.steps):
            if entry.target not in values:
                continue
            if entry.source is not None:
                entry.detail = f'{entry.detail} {detail}'.strip()
            else:
                entry.rest = f'{entry.rest}, {detail}'

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of the hybrid: that of the teacher's embeddings."""

    def mixer(self, layer: int) -> nn.Module:
        """The mixer of one layer, without the rest of the hybrid."""
        prefix = self.mixer_prefix(layer)
        with torch.device('meta'):
            mixer = build_mixer(self.config, layer)
        state = {n.removeprefix(prefix): t for n, t in self.tensors(prefix)}
        mixer.load_state_dict(state, assign=True)
        return mixer.eval()

    def report(self) -> SubcloneReport:
        """The report on the conversion."""
        entries, asked = [step.entry for step in self.steps], self.conversion
        return SubcloneReport(
            weight_map=f'{self.config.model_type}, init={asked.init}',
            layers=list(range(self.config.num_hidden_layers)),
            width='block' if asked.initialisation.blocks else 'whole',
            seed=asked.seed,
            entries=entries,
            unused=self.unused(entries),
            proof=self.proof,
        )

    def _seed(
        self, layer: int, shapes: Sequence[tuple[str, tuple[int, ...]]]
    ) -> MixerSeeding:
        prefix = self.mixer_prefix(layer)
        own = {n.removeprefix(prefix): s for n, s in shapes if n.startswith(prefix)}
        return MixerSeeding(
            self.config,
            layer,
            self.conversion,
            own,
            self._tensors,
            prefix,
            self._checkpoint,
            f'{self._prefix}{layer}.mixer.',
        )

    def _mixer_part(self, name: str) -> tuple[int, str] | None:
        """Layer and name within its mixer of a tensor; None for any other tensor."""
        found = self._mixer_tensor.fullmatch(name)
        if not found or int(found[1]) not in self.config.mamba_layers:
            return None
        return int(found[1]), found[2]

    def _layer_of(self, step: Step) -> int | None:
        """The layer whose mixer has a step's tensor, if one has."""
        part = self._mixer_part(step.entry.target)
        return part and part[0]

    def _keeps_float32(self, name: str) -> bool:
        part = self._mixer_part(name)
        if part is None:
            return False
        layer, tensor = part
        return mixer_class_of(self.config, layer).keeps_float32(tensor)

    def _step(self, name: str, shape: tuple[int, ...]) -> Step:
        part = self._mixer_part(name)
        if part is None:
            blocks = self.conversion.initialisation.blocks
            return inherited_step(name, shape, self._tensors, blocks)
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


class LanguagePlan(LayersPlan):
    """Plan for a causal language model, or for the decoder inside a larger model.

    Args:
        teacher, conversion, config, source, shapes: See :class:`LayersPlan`.
    """

    def __init__(
        self,
        teacher: Pretrained,
        conversion: Conversion,
        config: Any,
        source: TensorSource,
        shapes: Sequence[tuple[str, tuple[int, ...]]],
    ) -> None:
        mixers = 'model.layers.{i}.self_attn.'
        super().__init__(teacher, conversion, config, source, shapes, mixers)

    @classmethod
    def of(cls, teacher: Pretrained, conversion: Conversion) -> LanguagePlan:
        config = hybrid_config(teacher.config, conversion)
        shapes = target_shapes(causal_lm_class(config), config)
        return cls(teacher, conversion, config, teacher.source, shapes)

    @property
    def model_class(self) -> type[nn.Module]:
        """Class of the hybrid."""
        return causal_lm_class(self.config)

    @cached_property
    def dtype(self) -> torch.dtype:
        return self._tensors['model.embed_tokens.weight'].dtype

    @property
    def language(self) -> LanguagePlan:
        """The plan of the inner causal language model."""
        return self


def check_kinds(steps: Sequence[Step], *sources: TensorSource) -> None:
    """Refuse integer weights, such as those of a quantised model.

    Raises:
        CheckpointError: A tensor is computed from some; the message names them.
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
    """The step that copies a tensor from the teacher, or the block of it that fits.

    Args:
        name: The tensor, in student and teacher.
        shape: Its shape in the student.
        teacher: The teacher's tensors.
        blocks: Whether blocks may be copied.

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


def open_checkpoint(checkpoint: str | Path | None) -> TensorSource | None:
    """The tensors of a Mamba-1 model in a file or folder, None without one."""
    if checkpoint is None:
        return None
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


def _prefix_of(source: TensorSource) -> str:
    """The prefix of the layer number in a Mamba model's names."""
    for name in source:
        found = re.match(r'^(.*layers\.)\d+\.mixer\.', name)
        if found:
            return found[1]
    raise ValueError(
        'mamba_checkpoint holds no mixers under names such as '
        f"'backbone.layers.0.mixer.A_log'; it has {list(source)[:4]}."
    )
