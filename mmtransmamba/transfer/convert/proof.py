"""Comparison of a hybrid with its teacher before any training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmtransmamba.models.token_losses import score_tokens


@dataclass
class Proof:
    """Comparison of a student with its teacher on a text.

    Attributes:
        kl: Divergence of the student from the teacher, nats per token.
        agreement: Share of tokens for which both predict the same most likely one.
        perplexity, teacher_perplexity: Perplexities of the text.
        tokens: Number of predicted tokens.
        held_out: Whether this text was not used to choose anything about the student;
            None if the layers are those of a ranking made elsewhere.
    """

    kl: float
    agreement: float
    perplexity: float
    teacher_perplexity: float
    tokens: int
    held_out: bool | None = True

    def __str__(self) -> str:
        text = {
            True: 'held out',
            False: 'by which the layers were ranked',
            None: 'held out, unless the ranking of the layers has read it',
        }[self.held_out]
        return (
            f'Against the teacher on {self.tokens:,} tokens of text '
            f'({text}): KL {self.kl:.4f} nats per token, same most likely token '
            f'{100 * self.agreement:.1f} %, perplexity {self.perplexity:.3f} '
            f'(teacher {self.teacher_perplexity:.3f})'
        )


@torch.no_grad()
def prove(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Tensor | Mapping[str, Tensor]],
    held_out: bool | None = True,
) -> Proof:
    """Compare a student with its teacher.

    Args:
        student, teacher: Causal language models, in evaluation mode.
        batches: Token ids ``[B, L]`` without padding, or batches with ``input_ids`` and
            ``labels``; a batch's logits of both models are in memory at once.
        held_out: See :class:`Proof`.

    Raises:
        ValueError: Not one token is predicted.
    """
    nll = teacher_nll = kl = same = 0.0
    count = 0
    for batch in batches:
        if isinstance(batch, Tensor):
            batch = dict(input_ids=batch, labels=batch)
        ids, labels = batch['input_ids'], batch['labels'].cpu()
        logits, target = (
            model(ids.to(model.device), use_cache=False).logits.float().cpu()
            for model in (student, teacher)
        )
        scores = score_tokens(logits, labels, target)
        for own, other in zip(scores, score_tokens(target, labels), strict=True):
            nll += own['nll']
            teacher_nll += other['nll']
            kl += own['kl']
            same += own['agree']
            count += own['tokens']
    if not count:
        raise ValueError('Not one token of the text is predicted.')
    perplexity, teacher_perplexity = (
        math.exp(min(total / count, 700.0)) for total in (nll, teacher_nll)
    )
    return Proof(
        kl / count, same / count, perplexity, teacher_perplexity, count, held_out
    )
