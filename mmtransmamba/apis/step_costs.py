"""The cost of one training step of a model, measured on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmtransmamba.engine.sharding.units import blocks_of
from mmtransmamba.engine.student import trained_part
from mmtransmamba.utils.allocated_memory import allocated_peak
from mmtransmamba.utils.flops import counted, flop_counter
from mmtransmamba.utils.saved_memory import SavedMemory

SIZES = (2, 4)
"""Batch sizes that are measured; memory grows linearly with the batch."""


@dataclass
class Growth:
    """Bytes as a linear function of the batch size.

    Attributes:
        base: Bytes apart from the batch size.
        per_sample: Bytes for each sample.
    """

    base: float
    per_sample: float

    def at(self, batch_size: int) -> float:
        """Bytes for a batch."""
        return self.base + batch_size * self.per_sample

    @classmethod
    def through(cls, sizes: tuple[int, int], values: tuple[int, int]) -> Growth:
        """The line through two measurements."""
        slope = (values[1] - values[0]) / (sizes[1] - sizes[0])
        return cls(values[0] - sizes[0] * slope, slope)


@dataclass
class StepCosts:
    """Memory in bytes and FLOPs of a training step.

    Attributes:
        trained, frozen: Number of the model's parameters.
        teacher: Number of the teacher's parameters.
        weights: Bytes of the model's parameters and buffers.
        teacher_weights: Those of the teacher.
        gradients: Bytes of the gradients.
        optimizer: Bytes of the optimizer's states.
        largest_block: Bytes of the parameters of the largest block.
        saved: Bytes that autograd saves for the backward pass.
        peak: Most bytes that a step allocates at one time: what autograd saves,
            gradients and temporary tensors.
        student_flops, teacher_flops: FLOPs of a forward pass for one sample, a
            multiplication and an addition as one.
        tokens: Tokens of one sample; 0 for images.
    """

    trained: int
    frozen: int
    teacher: int
    weights: int
    teacher_weights: int
    gradients: int
    optimizer: int
    largest_block: int
    saved: Growth
    peak: Growth
    student_flops: float
    teacher_flops: float
    tokens: int


def measure_step(
    model: nn.Module, batch_of: Callable[[int], Any], optim_wrapper: dict[str, Any]
) -> StepCosts:
    """Run training steps with two batch sizes on the CPU, and measure them.

    Args:
        model: A model for mmengine, on the CPU. It is trained by a few steps.
        batch_of: A batch of a size, as from a dataloader.
        optim_wrapper: Config of the optimizer wrapper; nothing is accumulated.
    """
    model.train()
    wrapper = _build(model, optim_wrapper)
    small = SIZES[0]
    _step(model, batch_of(small), wrapper)  # creates what is created once
    steps = [_step(model, batch_of(size), wrapper) for size in SIZES]
    saved, peaks = zip(*steps, strict=True)
    flops, teacher_flops = _flops(model, batch_of(small))
    teacher = getattr(model, 'teacher', None)
    teacher = teacher if isinstance(teacher, nn.Module) else nn.Module()
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    states = tree_leaves(list(wrapper.optimizer.state.values()))
    blocks = blocks_of(trained_part(model)) or [model]
    return StepCosts(
        trained=sum(p.numel() for p in trained),
        frozen=sum(p.numel() for p in parameters) - sum(p.numel() for p in trained),
        teacher=sum(p.numel() for p in teacher.parameters()),
        weights=_bytes([*parameters, *model.buffers()]),
        teacher_weights=_bytes([*teacher.parameters(), *teacher.buffers()]),
        gradients=_bytes(trained),
        optimizer=_bytes(s for s in states if isinstance(s, Tensor)),
        largest_block=max(_bytes(block.parameters()) for block in blocks),
        saved=Growth.through(SIZES, saved),
        peak=Growth.through(SIZES, peaks),
        student_flops=(flops - teacher_flops) / small,
        teacher_flops=teacher_flops / small,
        tokens=_tokens(batch_of(1)),
    )


def _build(model: nn.Module, config: dict[str, Any]) -> OptimWrapper:
    config = dict(config, accumulative_counts=1)
    kind = str(config.get('type', 'OptimWrapper')).rpartition('.')[2]
    if kind == 'AmpOptimWrapper':
        # Its autocast on the CPU; float16 takes the same memory as bfloat16.
        config.update(type='mmtransmamba.AutocastOptimWrapper', dtype='bfloat16')
        config.pop('loss_scale', None)
    wrapper = build_optim_wrapper(model, config)
    wrapper.initialize_count_status(model, 0, 10)
    return wrapper


def _step(model: nn.Module, data: Any, wrapper: OptimWrapper) -> tuple[int, int]:
    """Most bytes that autograd saves in a step, and that the step allocates."""
    known = [*model.parameters(), *model.buffers()]
    teacher = getattr(model, 'teacher', None)
    if isinstance(teacher, nn.Module):
        known += [*teacher.parameters(), *teacher.buffers()]
    known += [leaf for leaf in tree_leaves(data) if isinstance(leaf, Tensor)]
    with SavedMemory(known) as memory:
        peak = allocated_peak(lambda: model.train_step(data, wrapper))
    return memory.peak, peak


def _flops(model: nn.Module, data: Any) -> tuple[int, int]:
    """FLOPs of a forward pass: all, and the teacher's."""
    data = model.data_preprocessor(data, True)
    with torch.no_grad(), flop_counter() as counter, _teachers(model, counter) as own:
        model._run_forward(data, mode='loss')
    return counted(counter), sum(own)


@contextmanager
def _teachers(model: nn.Module, counter: Any) -> Iterator[list[int]]:
    """Collect the FLOPs between the beginning and the end of the teacher's calls."""
    teacher, own, begun = getattr(model, 'teacher', None), [], []
    if not isinstance(teacher, nn.Module):
        yield own
        return
    handles = [
        teacher.register_forward_pre_hook(lambda *_: begun.append(counted(counter))),
        teacher.register_forward_hook(
            lambda *_: own.append(counted(counter) - begun.pop())
        ),
    ]
    try:
        yield own
    finally:
        for handle in handles:
            handle.remove()


def _bytes(tensors: Any) -> int:
    storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def _tokens(data: Any) -> int:
    ids = data.get('input_ids') if isinstance(data, dict) else None
    return 0 if ids is None else ids.numel()
