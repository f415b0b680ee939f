"""Distances between a student's and a teacher's features or logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmtransmamba.models.divergence import kl_of_logits
from mmtransmamba.registry import MODELS

_EPS = 1e-8
"""The smallest norm that a vector is divided by."""


@MODELS.register_module()
class CosineDistance(nn.Module):
    r"""One minus the cosine of student and teacher vectors (TransMamba Eq. 4)."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``1 - cos`` of vectors ``[..., C]``: shape ``[...]``, float32."""
        vectors = torch.broadcast_tensors(student.float(), teacher.float())
        return 1 - _Cosine.apply(*vectors)


class _Cosine(torch.autograd.Function):
    r"""Cosines of vectors, as ``F.cosine_similarity`` has them, with the gradient

    :math:`\partial\cos / \partial s = t / (|s| |t|) - \cos s / |s|^2`

    in two passes over the vectors. A record of the single operations has about four
    times as many, and the vectors are every token of every block and direction.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        norms = [torch.linalg.vector_norm(x, dim=-1) for x in (first, second)]
        dot = (first * second).sum(-1)
        cosine = dot / (norms[0].clamp_min(_EPS) * norms[1].clamp_min(_EPS))
        ctx.save_for_backward(first, second, *norms, cosine)
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        first, second, *norms, cosine = ctx.saved_tensors
        clamped = [norm.clamp_min(_EPS) for norm in norms]
        cross = (grad / (clamped[0] * clamped[1])).unsqueeze(-1)
        grads = []
        for own, other, index in ((first, second, 0), (second, first, 1)):
            if not ctx.needs_input_grad[index]:
                grads.append(None)
                continue
            # A norm that was raised to the smallest is a constant.
            along = (grad * cosine / clamped[index].square()).where(
                norms[index] >= _EPS, 0
            )
            grads.append((cross * other).addcmul_(along.unsqueeze(-1), own, value=-1))
        return tuple(grads)


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
