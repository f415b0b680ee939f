"""Means over all data of one optimizer step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmtransmamba.compat import active_ddp
from mmtransmamba.models.trainable.partial_backward import PartialBackward

Share = Mapping[str, Tensor]
"""Factor by which a batch's mean over each unit enters the step's loss.

A loss is a mean over some unit, over the tokens that are predicted for example. Times
the share, the means of all batches of a step add up to the mean over the step, once
the gradients are averaged over the processes.
"""

IMAGES = 'images'
PREDICTED = 'predicted tokens'
KEPT = 'tokens without padding'
"""Units over which losses are means."""

BATCHES = 'batches'
"""Unit of losses that are no mean over anything in a batch."""


def shares(counts: Sequence[Mapping[str, Tensor | int]]) -> list[Share]:
    r"""The share of each batch of a step: :math:`R\,n_{b} / \sum_{r, b'} n_{r, b'}`.

    Args:
        counts: For each of this process's batches in the step, its number of each
            unit. All R processes must call this function.
    """
    units = list(counts[0])
    table = torch.stack(
        [torch.stack([torch.as_tensor(c[unit]) for unit in units]) for c in counts]
    ).double()
    ranks, total = get_world_size(), table.sum(0)
    all_reduce(total)
    table = (ranks * table / total.clamp_min(1)).float()
    equal = torch.full_like(table[0, 0], 1 / len(counts))
    return [dict(zip(units, row, strict=True)) | {BATCHES: equal} for row in table]


def times(share: Share | None, unit: str, loss: Any) -> Any:
    """A loss, or a list of losses, times its share; unchanged for a share of None."""
    if share is None:
        return loss
    if isinstance(loss, Tensor):
        return loss * share[unit]
    return [part * share[unit] for part in loss]


def zero_of(parameters: Iterable[nn.Parameter], device: torch.device) -> Tensor:
    """Zero, with otherwise unused parameters in its graph.

    Every parameter takes part in every step, as DDP requires.
    """
    zero = torch.zeros((), device=device)
    return sum((0.0 * parameter.sum() for parameter in parameters), zero)


class StepAverage(BaseModel):
    """A model whose loss is a mean over the whole optimizer step.

    mmengine averages the losses of the batches that an ``OptimWrapper`` accumulates,
    and DDP those of the processes, so a token in a batch with few tokens has a larger
    weight. Here all tokens have the same weight. With ``accumulative_counts``, the
    batches of a step are stored until all of them are available and their number of
    tokens is known, including those of other processes. Only then are the losses
    computed, one batch after the other; memory holds the graph of one. Earlier
    iterations of the step log nothing.

    Attributes:
        average: Unit with equal weights, or :data:`BATCHES` for mmengine's mean of the
            batches' means.
    """

    average: str
    _window: list[Any]
    # Whether a wrapper is about to parse losses that were multiplied by shares.
    _shared: bool

    def _average_over(self, average: str, *accepted: str) -> None:
        """Set the unit to average over; call it in ``__init__``.

        Raises:
            ValueError: The unit is not accepted.
        """
        if average not in accepted:
            raise ValueError(
                f'{type(self).__name__}: average={average!r} must be one of '
                f'{", ".join(accepted)}.'
            )
        self.average = average
        self._window = []
        self._shared = False

    @abstractmethod
    def count_units(self, data: Any) -> dict[str, Tensor | int]:
        """Number of each unit in a batch, by the unit's name."""

    def losses_of(
        self, data: Any, share: Share | None, backward: PartialBackward
    ) -> dict[str, Any]:
        """Losses of a batch times their shares, after their backward pass.

        Args:
            data: The batch, from the data preprocessor.
            share: Its share of the step; None if it is the whole step.
            backward: Called with the loss.
        """
        losses = self._run_forward(dict(data, share=share), mode='loss')
        backward(self.parse_losses(losses)[0])
        return losses

    def train_step(
        self, data: dict | tuple | list, optim_wrapper: OptimWrapper
    ) -> dict[str, Tensor]:
        """Run one iteration, which ends the step or stores its batch for a later one.

        Args:
            data: A batch.
            optim_wrapper: Its accumulation, loss scaling and clipping work as usual.

        Returns:
            Values to log after the end of a step: its losses, averaged over all
            processes.
        """
        data = self.data_preprocessor(data, True)
        if self.average == BATCHES:
            backward = PartialBackward(optim_wrapper, mean_of_batches=True)
            with optim_wrapper.optim_context(self):
                losses = self.losses_of(data, None, backward)
            # Before the weights change: a hook on the losses may refuse the step.
            logs = self.parse_losses(losses)[1]
            backward.step()
            return logs
        self._window.append(data)
        backward = PartialBackward(optim_wrapper)
        if not backward.completes_step():
            backward.step()
            return {}
        batches, self._window = self._window, []
        whole = len(batches) == 1 and get_world_size() == 1
        parts = [None] if whole else shares([self.count_units(b) for b in batches])
        logs = []
        for batch, share in zip(batches, parts, strict=True):
            with optim_wrapper.optim_context(self):
                losses = self.losses_of(batch, share, backward)
            logs.append(self.parse_losses(losses)[1])
        backward.step()
        return logs[0] if whole else _joined(logs)

    def share_under_wrapper(self, counts: dict[str, Tensor | int]) -> Share | None:
        """The share of a batch in a forward pass that all processes run together.

        DDP and similar wrappers call the model, not :meth:`train_step`.

        Raises:
            ValueError: DDP accumulates gradients, but only a single batch is visible
                here.
        """
        if (
            self.average == BATCHES
            or not (self.training and torch.is_grad_enabled())
            or get_world_size() == 1
        ):
            return None
        wrapper = active_ddp()
        if wrapper is not None and not wrapper.require_backward_grad_sync:
            raise ValueError(
                f'{type(self).__name__}: under DDP the mean over the {self.average} of '
                'several batches (optim_wrapper.accumulative_counts) cannot be taken. '
                "Set model_wrapper_cfg=dict(type='mmtransmamba.PartwiseDataParallel'), "
                f"or model.average='{BATCHES}' for the mean of the batches' means."
            )
        self._shared = True
        return shares([counts])[0]

    def parse_losses(self, losses: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Like mmengine's; losses shared among processes are logged as their sum."""
        loss, logs = super().parse_losses(losses)
        if self._shared:
            self._shared = False
            logs = _joined([logs])
        return loss, logs


def _joined(logs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sums of shared losses, means of other values; both means over the processes."""
    values = {
        name: torch.stack([log[name].detach().float() for log in logs])
        for name in logs[0]
    }
    values = {k: v.sum() if 'loss' in k else v.mean() for k, v in values.items()}
    stacked = torch.stack(list(values.values()))
    all_reduce(stacked, op='mean')
    return dict(zip(values, stacked, strict=True))
