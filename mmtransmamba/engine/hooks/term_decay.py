"""Fading of distillation terms during training."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.registry import HOOKS


@HOOKS.register_module()
class TermDecayHook(Hook):
    """Fades terms of a distiller linearly from their full weight to zero.

    Features of another architecture lead a student quickly to a good region, but may
    not be the best ones for it: late in training, the terms can compete with the task
    and the logits.

    Args:
        terms: Names of the terms in the distiller's ``terms``.
        begin: Fraction of the training, in [0, 1), at which fading starts.
        end: Fraction of the training, in (begin, 1], at which it ends.

    Raises:
        ValueError: The range is invalid, or the distiller has no such term.
    """

    def __init__(
        self, terms: Sequence[str], begin: float = 0.0, end: float = 1.0
    ) -> None:
        if not 0 <= begin < end <= 1:
            raise ValueError(
                f'TermDecayHook: begin={begin} and end={end} must satisfy '
                '0 <= begin < end <= 1.'
            )
        self.terms = tuple(terms)
        self.begin = begin
        self.end = end

    def before_train(self, runner: Runner) -> None:
        known = set(getattr(unwrapped_model(runner), 'terms', {}))
        unknown = sorted(set(self.terms) - known)
        if unknown:
            raise ValueError(
                f'TermDecayHook: terms={list(self.terms)} names {unknown}, the model '
                f'has {sorted(known)}.'
            )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        progress = runner.iter / runner.max_iters
        scale = (self.end - progress) / (self.end - self.begin)
        distiller = unwrapped_model(runner)
        for name in self.terms:
            distiller.terms[name].scale = min(max(scale, 0.0), 1.0)
