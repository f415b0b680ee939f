"""The Kullback-Leibler divergence of rows of logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def kl_of_logits(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    r""":math:`\tau^2 \mathrm{KL}(p_T \| p_S)` of each row.

    A class to which the teacher gives probability 0, as one whose logit is -inf or the
    lowest number of its dtype, adds 0 to the divergence and to the gradient, whatever
    the student says of it. A row in which the teacher rules out every class says
    nothing: its divergence is 0. A class that only the student rules out makes the
    divergence infinite, as it is.

    Args:
        student, teacher: Logits ``[..., V]``.
        temperature: :math:`\tau` > 0, which softens both.

    Returns:
        ``[...]``, float32.
    """
    teacher = teacher.float()
    silent = teacher.amax(-1, keepdim=True) == -torch.inf
    log_p_t = F.log_softmax(teacher.masked_fill(silent, 0) / temperature, dim=-1)
    log_p_s = F.log_softmax(student.float() / temperature, dim=-1)
    kl = kl_of_log_probs(log_p_s, log_p_t).masked_fill(silent.squeeze(-1), 0)
    return temperature**2 * kl


def kl_of_log_probs(student: Tensor, teacher: Tensor) -> Tensor:
    r""":math:`\mathrm{KL}(p_T \| p_S)` of rows ``[..., V]`` of log-probabilities.

    What the teacher gives probability 0 adds 0; see :func:`kl_of_logits`.
    """
    probability = teacher.exp()
    # Not multiplied by 0: that would make NaN of an infinite difference, in the
    # backward pass too.
    ratio = (teacher - student).masked_fill(probability == 0, 0)
    return (probability * ratio).sum(-1)
