"""Logging the size of the gradients of a distiller's terms, and their agreement."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtransmamba.compat import is_fully_sharded
from mmtransmamba.engine.hooks.interval import checked_interval
from mmtransmamba.engine.random_state import kept_generators
from mmtransmamba.engine.unwrap import loss_scaler, unwrapped_model
from mmtransmamba.registry import HOOKS
from mmtransmamba.transfer.distillers.base import Distiller


@HOOKS.register_module()
class TermGradientsHook(Hook):
    """Logs norms and directions of the gradients of a distiller's losses.

    Each loss of the sum, the task's included, is differentiated alone with respect to
    all trained parameters of the student, before the step whose batch it sees and
    times the weight with which it enters the sum. The scalars are

    - ``term_gradient/norm/TERM``: the gradient's Euclidean norm, 0 for a term that
      has faded out;
    - ``term_gradient/cosine/TERM,TERM``: the cosine between two of them, in [-1, 1];
      below 0, one undoes part of what the other does. Without a gradient of one of
      them, or where one overflows, there is no such scalar.

    Training is the same with and without the hook. An iteration that is recorded takes
    an additional forward pass, and a backward pass for each loss, and memory for the
    gradients of all. Under DDP the figures are those of the first process's batch.

    Args:
        interval: Iterations between two records, beginning with the first iteration.

    Raises:
        ValueError: At the start of a training whose model is not a distiller, or is
            sharded.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = checked_interval('TermGradientsHook', interval)

    def before_train(self, runner: Runner) -> None:
        check_measurable('TermGradientsHook', runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        if runner.iter % self.interval:
            return
        with measured_losses(runner, data_batch) as losses:
            student = unwrapped_model(runner).student
            scalars = term_gradients(losses, student, loss_scale(runner))
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)


def check_measurable(hook: str, runner: Runner) -> None:
    """Check that gradients of single terms can be measured.

    Raises:
        ValueError: The model is not a distiller, is sharded, trains nothing of its
            student, or has a term with one gradient for two losses; the message begins
            with ``hook``.
    """
    model = unwrapped_model(runner)
    if not isinstance(model, Distiller):
        raise ValueError(
            f'{hook}: the model is not a distiller and has no terms; leave the hook '
            'out.'
        )
    if is_fully_sharded(model):
        raise ValueError(
            f'{hook}: parameters are sharded, and no process has a whole gradient; '
            'leave the hook out, or train with DDP.'
        )
    joined = [
        name
        for name, term in model.terms.items()
        if getattr(term, 'joins_gradients', False)
    ]
    if joined:
        raise ValueError(
            f'{hook}: terms.{joined[0]} computes the gradients of divergence and '
            'cross-entropy as one; leave the hook out, or set fused=False.'
        )
    if not trained_parameters(model.student):
        raise ValueError(
            f'{hook}: all parameters of the student are frozen, so losses have no '
            'gradients; leave the hook out.'
        )


@contextmanager
def measured_losses(runner: Runner, data_batch: Any) -> Iterator[dict[str, Any]]:
    """Losses of a batch, with their graphs, without an effect on the training."""
    model = unwrapped_model(runner)
    with _unchanged(model), runner.optim_wrapper.optim_context(model):
        data = model.data_preprocessor(copy.deepcopy(data_batch), True)
        yield model(**data, mode='loss')


def loss_scale(runner: Runner) -> float:
    """The factor by which the training multiplies losses before they are
    differentiated, so that float16 holds their gradients; 1 without one."""
    scaler = loss_scaler(runner)
    return 1.0 if scaler is None else scaler.get_scale()


def trained_parameters(student: nn.Module) -> list[Tensor]:
    """The parameters with respect to which losses are differentiated."""
    return [p for p in student.parameters() if p.requires_grad]


def term_gradients(
    losses: Mapping[str, Any], student: nn.Module, scale: float = 1.0
) -> dict[str, float]:
    """Norms of the gradients of losses, and the cosines between them.

    Args:
        losses: As the distiller returns them, with their graphs; entries without
            ``loss`` in their name are no losses.
        student: Its trained parameters are differentiated.
        scale: Losses are multiplied by it and their gradients divided, as a training
            in float16 does. A gradient that overflows has the norm infinity or NaN.

    Returns:
        The scalars of :class:`TermGradientsHook`.
    """
    parameters = trained_parameters(student)
    gradients, norms = {}, {}
    for name, loss in losses.items():
        if 'loss' in name:
            term = name.removeprefix('loss_')
            gradients[term] = gradient_of(loss, parameters, scale)
            norms[term] = float(gradients[term].norm())
    scalars = {f'term_gradient/norm/{term}': norm for term, norm in norms.items()}
    directed = [t for t, norm in norms.items() if norm and math.isfinite(norm)]
    for one, other in combinations(directed, 2):
        product = float(gradients[one] @ gradients[other])
        scalars[f'term_gradient/cosine/{one},{other}'] = product / (
            norms[one] * norms[other]
        )
    return scalars


def gradient_of(
    loss: Tensor | list[Tensor], parameters: list[Tensor], scale: float = 1.0
) -> Tensor:
    """The gradient of a loss in float32, flat; zero where the loss does not reach.

    The loss is multiplied by ``scale``, and the gradient divided.
    """
    # As mmengine adds up a detector's losses of several levels.
    total = loss.mean() if isinstance(loss, Tensor) else sum(x.mean() for x in loss)
    if total.requires_grad:
        found = torch.autograd.grad(
            total * scale, parameters, retain_graph=True, allow_unused=True
        )
    else:
        found = [None] * len(parameters)
    parts = [
        (torch.zeros_like(p) if gradient is None else gradient).float().flatten()
        for p, gradient in zip(parameters, found, strict=True)
    ]
    return torch.cat(parts) / scale


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Leave random generators and the model's buffers as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with kept_generators():
            yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
