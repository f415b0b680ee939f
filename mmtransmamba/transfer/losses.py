"""Distances between a student's and a teacher's features or logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.divergence import kl_of_logits
from mmtransmamba.registry import MODELS


@MODELS.register_module()
class CosineDistance(nn.Module):
    r"""One minus the cosine of student and teacher vectors (TransMamba Eq. 4)."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``1 - cos`` of vectors ``[..., C]``: shape ``[...]``, float32."""
        return 1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1)


@MODELS.register_module()
class ChannelCrossEntropy(nn.Module):
    r"""Cross-entropy of softmaxes over feature channels.

    :math:`H(t, s) = -\sum_c \mathrm{softmax}(t / \tau)_c \log
    \mathrm{softmax}(s / \tau)_c`: the feature loss of the TransMamba authors' released
    code, which has no factor :math:`\tau^2`.

    Args:
        temperature: :math:`\tau`.
    """

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = _positive('temperature', temperature)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Cross-entropy of vectors ``[..., C]``: shape ``[...]``, float32."""
        target = F.softmax(teacher.float() / self.temperature, dim=-1)
        log_prob = F.log_softmax(student.float() / self.temperature, dim=-1)
        return -(target * log_prob).sum(-1)


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r""":math:`\tau^2 \mathrm{KL}(p_T \| p_S)` of logits softened by ``temperature``.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015: the factor
    keeps the gradient's size independent of the temperature.

    Args:
        student, teacher: Logits ``[B, num_classes]``. For classes that the teacher
            excludes see
            :func:`~mmtransmamba.models.divergence.kl_of_logits`.
        temperature: :math:`\tau` > 0.

    Returns:
        Scalar mean over the batch, float32.
    """
    return kl_of_logits(student, teacher, temperature).mean()


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f'{name}={value} must be greater than 0.')
    return value


def standardize(tokens: Tensor, kind: str) -> Tensor:
    """Remove the common part of teacher tokens.

    Args:
        tokens: ``[B, M, C]``.
        kind: ``'none'``; ``'center'``, subtract the mean over the batch's tokens; or
            ``'standardize'``, divide by the standard deviation per channel as well.
            A cosine to tokens with a large common mean is high whatever the student
            predicts for the single token.

    Returns:
        Float32 tensor of the same shape.
    """
    tokens = tokens.float()
    if kind == 'none':
        return tokens
    dims = tuple(range(tokens.ndim - 1))
    centred = tokens - tokens.mean(dims, keepdim=True)
    if kind == 'center':
        return centred
    return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + 1e-6)
