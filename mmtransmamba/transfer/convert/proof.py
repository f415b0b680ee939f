"""Comparison of a hybrid with its teacher before any training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.divergence import kl_of_logits


@dataclass
class Proof:
    """Comparison of a student with its teacher on a text.

    Attributes:
        kl: Divergence of the student from the teacher, nats per token.
        agreement: Share of tokens for which both predict the same most likely one.
        perplexity, teacher_perplexity: Perplexities of the text.
        tokens: Number of predicted tokens.
        held_out: Whether this text was not used to choose anything about the student.
    """

    kl: float
    agreement: float
    perplexity: float
    teacher_perplexity: float
    tokens: int
    held_out: bool = True

    def __str__(self) -> str:
        text = 'held out' if self.held_out else 'by which the layers were ranked'
        return (
            f'Against the teacher on {self.tokens:,} tokens of calibration text '
            f'({text}): KL {self.kl:.4f} nats per token, same most likely token '
            f'{100 * self.agreement:.1f} %, perplexity {self.perplexity:.3f} '
            f'(teacher {self.teacher_perplexity:.3f})'
        )


@torch.no_grad()
def prove(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Tensor],
    held_out: bool = True,
) -> Proof:
    """Compare a student with its teacher.

    Args:
        student, teacher: Causal language models, in evaluation mode.
        batches: Token ids ``[B, L]`` without padding; a batch's logits of both models
            are in memory at once.
        held_out: See :class:`Proof`.
    """
    nll = teacher_nll = kl = same = 0.0
    count = 0
    for batch in batches:
        logits, target = (
            model(batch.to(model.device), use_cache=False).logits[:, :-1].float().cpu()
            for model in (student, teacher)
        )
        kl += float(kl_of_logits(logits, target).double().sum())
        same += float((logits.argmax(-1) == target.argmax(-1)).sum())
        words = batch[:, 1:].flatten().cpu()
        nll += float(F.cross_entropy(logits.flatten(0, 1), words, reduction='sum'))
        teacher_nll += float(
            F.cross_entropy(target.flatten(0, 1), words, reduction='sum')
        )
        count += words.numel()
    perplexity, teacher_perplexity = (
        math.exp(min(total / count, 700.0)) for total in (nll, teacher_nll)
    )
    return Proof(
        kl / count, same / count, perplexity, teacher_perplexity, count, held_out
    )
