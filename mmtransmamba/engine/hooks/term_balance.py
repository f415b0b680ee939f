"""Weights of distillation terms that keep their gradients as large as another's."""

from __future__ import annotations

import logging
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor

from mmtransmamba.engine.hooks.interval import checked_interval
from mmtransmamba.engine.hooks.term_decay import TermDecayHook
from mmtransmamba.engine.hooks.term_gradients import (
    check_measurable,
    gradient_of,
    loss_scale,
    measured_losses,
    trained_parameters,
)
from mmtransmamba.engine.hooks.term_names import check_known, term_names
from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.registry import HOOKS
from mmtransmamba.transfer.distillers import MultiDirectionDistiller

TASK = 'task'
NORMS = 'term_balance'
"""Where the norms are kept in the message hub, which checkpoints contain."""


@HOOKS.register_module()
class TermBalanceHook(Hook):
    r"""Weighs terms of a distiller by the size of their gradients.

    Every ``interval`` iterations the gradients :math:`g_j` of the named terms and
    :math:`g_r` of a reference are measured alone, with respect to all trained
    parameters of the student, and term j is multiplied by

    .. math:: s_j = \min(r_j \|g_r\| / \|g_j\|, \mathrm{most})

    with norms that are running means. :math:`r_j` is the size that is asked for,
    relative to the reference's. The weight that the term has in its config cancels out.
    It is the aim of GradNorm (`arXiv:1711.02257 <https://arxiv.org/abs/1711.02257>`_)
    with rates of 1, solved instead of learned. Scales are logged as
    ``term_balance/TERM``.

    A measurement costs a forward pass, and a backward pass for each term and the
    reference. Norms are means over the processes of a distributed training, and a
    resumed training goes on with them.

    Args:
        terms: Names of terms in the distiller's ``terms``, or their sizes by name; 1
            for names alone.
        to: The reference, ``'task'`` or the name of another term.
        interval: Iterations between measurements, beginning with the first iteration.
        momentum: Part of a running mean that a measurement leaves, in [0, 1).
        most: Upper bound of a scale, for terms that have almost no gradient.

    Raises:
        ValueError: An argument is outside its range, the distiller has no such term, or
            another hook scales one of them too; at the start of a training also if the
            model is not a distiller, is sharded, or has a frozen student.
    """

    def __init__(
        self,
        terms: Sequence[str] | Mapping[str, float],
        to: str = 'logits',
        interval: int = 20,
        momentum: float = 0.5,
        most: float = 100.0,
    ) -> None:
        names = term_names('TermBalanceHook', terms)
        sizes = terms if isinstance(terms, Mapping) else dict.fromkeys(names, 1.0)
        for name, size in sizes.items():
            if not isinstance(size, int | float) or not 0 < size < math.inf:
                raise ValueError(
                    f'TermBalanceHook: terms[{name!r}]={size!r} must be a number above '
                    '0 and finite.'
                )
        if to in sizes:
            raise ValueError(
                f'TermBalanceHook: terms={list(names)} must not name to={to!r}.'
            )
        if not 0 <= momentum < 1:
            raise ValueError(f'TermBalanceHook: momentum={momentum} must be in [0, 1).')
        if not 0 < most < math.inf:
            raise ValueError(
                f'TermBalanceHook: most={most} must be above 0 and finite.'
            )
        self.sizes = dict(sizes)
        self.to = to
        self.interval = checked_interval('TermBalanceHook', interval)
        self.momentum = momentum
        self.most = most

    def before_train(self, runner: Runner) -> None:
        check_measurable('TermBalanceHook', runner)
        model = unwrapped_model(runner)
        known = set(model.terms)
        if isinstance(model, MultiDirectionDistiller):
            known.add(TASK)
        named = {*self.sizes, self.to}
        check_known('TermBalanceHook: terms and to', [*self.sizes, self.to], known)
        for hook in runner.hooks:
            if isinstance(hook, TermDecayHook) and (both := named & set(hook.terms)):
                raise ValueError(
                    f'TermBalanceHook: {sorted(both)} fade by TermDecayHook too; leave '
                    'them out of one of the two.'
                )
            if hook is not self and isinstance(hook, TermBalanceHook):
                theirs = {*hook.sizes, hook.to}
                both = named & set(hook.sizes) | theirs & set(self.sizes)
                if both:
                    raise ValueError(
                        f'TermBalanceHook: {sorted(both)} are scaled by one hook and '
                        'in another one; name all terms in one hook.'
                    )
        self._scale(runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        if runner.iter % self.interval:
            return
        measured = self._measure(runner, data_batch)
        norms = dict(runner.message_hub.get_info(NORMS, {}))
        for name, norm in measured.items():
            if norm == 0 and name not in norms:
                print_log(
                    f'TermBalanceHook: {name} has no gradient in iteration '
                    f'{runner.iter + 1} (a weight, or alpha, of 0?); nothing that it '
                    'takes part in is scaled before it has one.',
                    'current',
                    logging.WARNING,
                )
            if math.isfinite(norm) and norm > 0:
                old = norms.get(name, norm)
                norms[name] = self.momentum * old + (1 - self.momentum) * norm
        runner.message_hub.update_info(NORMS, norms)
        scales = self._scale(runner)
        runner.visualizer.add_scalars(
            {f'term_balance/{name}': scale for name, scale in scales.items()},
            step=runner.iter + 1,
        )

    def _measure(self, runner: Runner, data_batch: Any) -> dict[str, float]:
        """Norms of the gradients, those of the terms without their scales."""
        model = unwrapped_model(runner)
        parameters = trained_parameters(model.student)
        names = [self.to, *self.sizes]
        with measured_losses(runner, data_batch) as losses:
            scale = loss_scale(runner)
            found = [
                gradient_of(_of(losses, name, model.terms), parameters, scale).norm()
                for name in names
            ]
        norms = torch.stack(found)
        all_reduce(norms, 'mean')
        return {
            name: norm / (model.terms[name].scale if name in self.sizes else 1)
            for name, norm in zip(names, norms.tolist(), strict=True)
        }

    def _scale(self, runner: Runner) -> dict[str, float]:
        """Set the scales from the norms that are known, and return them."""
        norms = runner.message_hub.get_info(NORMS, {})
        scales = {
            name: min(size * norms[self.to] / norms[name], self.most)
            for name, size in self.sizes.items()
            if norms.get(self.to) and norms.get(name)
        }
        terms = unwrapped_model(runner).terms
        for name, scale in scales.items():
            terms[name].scale = scale
        return scales


def _of(
    losses: Mapping[str, Any], name: str, terms: Container[str]
) -> Tensor | list[Tensor]:
    """The loss of a term; for a name that is none, all losses of the task."""
    if name in terms:
        return losses[f'loss_{name}']
    found: list[Tensor] = []
    for key, loss in losses.items():
        # Heads of segmentors and of DETR name theirs ``decode.loss_task_ce``.
        if f'loss_{TASK}' in key:
            found += [loss] if isinstance(loss, Tensor) else loss
    return found
