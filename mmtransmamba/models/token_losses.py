"""Losses and scores of next-token distributions, per token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmtransmamba.models.divergence import kl_of_logits

CHUNK = 4096
"""Tokens whose distributions are compared at once."""


def predicted(labels: Tensor | None, mask: Tensor | None = None) -> Tensor:
    """Mask of the positions whose next token is predicted: bool ``[B, L - 1]``.

    Args:
        labels: ``[B, L]``, negative where a token is not to be predicted.
        mask: ``[B, L]``, 0 for padding, which is neither predicted nor predicted from:
            with padding on the left, the first token has a label, but no predecessor.

    Raises:
        ValueError: There are no labels.
    """
    if labels is None:
        raise ValueError(
            'The batch has no labels, which mark the tokens to be predicted: give '
            '"labels" [B, L], the input_ids with -100 for prompts and padding.'
        )
    next_counts = labels[:, 1:] >= 0
    if mask is None:
        return next_counts
    kept = mask.bool()
    return next_counts & kept[:, :-1] & kept[:, 1:]


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of tokens ``[M]`` under logits ``[M, V]``: ``[M]``."""
    return F.cross_entropy(logits.float(), targets, reduction='none')


def mean_over_tokens(loss, *tensors: Tensor) -> Tensor:
    """Mean of a loss ``[M]`` over its tokens, without storing all distributions.

    With more than :data:`CHUNK` tokens, the distributions (gigabytes for a vocabulary
    of 128K) are computed chunk by chunk, and again in the backward pass.

    Args:
        loss: Function of tensors ``[M, ...]``.
        *tensors: Its arguments.
    """
    count = tensors[0].shape[0]
    if count <= CHUNK:
        return loss(*tensors).sum() / max(count, 1)
    total = tensors[0].new_zeros((), dtype=torch.float32)
    for parts in zip(*(t.split(CHUNK) for t in tensors), strict=True):
        total = total + checkpoint(
            lambda *part: loss(*part).sum(), *parts, use_reentrant=False
        )
    return total / count


@torch.no_grad()
def score_tokens(
    logits: Tensor,
    labels: Tensor,
    teacher: Tensor | None = None,
    mask: Tensor | None = None,
) -> list[dict[str, float]]:
    """Sums over the tokens of each sequence, for :class:`TokenMetric`.

    Args:
        logits: ``[B, L, V]``.
        labels, mask: See :func:`predicted`.
        teacher: The teacher's logits, ``[B, L, V]``; if the vocabulary sizes differ,
            only the ids in both are compared.

    Returns:
        For each sequence ``tokens``, the number of tokens; ``nll``, the sum of their
        negative log-likelihoods; ``correct``, the number of tokens that are the most
        likely one; and with a teacher ``kl``, the sum of the divergences from it, and
        ``agree``, the number of tokens for which both have the same most likely one.
    """
    scores = []
    for i, valid in enumerate(predicted(labels, mask)):
        rows, targets = logits[i, :-1][valid], labels[i, 1:][valid]
        best = rows.argmax(-1)
        score = dict(
            tokens=len(targets),
            nll=token_nll(rows, targets).sum().item(),
            correct=(best == targets).sum().item(),
        )
        if teacher is not None:
            target_rows = teacher[i, :-1][valid]
            shared = min(rows.shape[-1], target_rows.shape[-1])
            score['kl'] = (
                kl_of_logits(rows[:, :shared], target_rows[:, :shared]).sum().item()
            )
            score['agree'] = (best == target_rows.argmax(-1)).sum().item()
        scores.append(score)
    return scores
