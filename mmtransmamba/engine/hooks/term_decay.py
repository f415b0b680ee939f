"""Fading of distillation terms during training."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmtransmamba.engine.hooks.term_names import check_known, term_names
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
        ValueError: The range is invalid, no term is named, or the distiller has no such
            term.
    """

    def __init__(
        self, terms: Sequence[str], begin: float = 0.0, end: float = 1.0
    ) -> None:
        if not 0 <= begin < end <= 1:
            raise ValueError(
                f'TermDecayHook: begin={begin} and end={end} must satisfy '
                '0 <= begin < end <= 1.'
            )
        self.terms = term_names('TermDecayHook', terms)
        self.begin = begin
        self.end = end

    def before_train(self, runner: Runner) -> None:
        known = getattr(unwrapped_model(runner), 'terms', {})
        check_known('TermDecayHook: terms', self.terms, known)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        progress = runner.iter / runner.max_iters
        scale = (self.end - progress) / (self.end - self.begin)
        distiller = unwrapped_model(runner)
        for name in self.terms:
            distiller.terms[name].scale = min(max(scale, 0.0), 1.0)
