"""Divergences between rows of logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtransmamba.utils.dtypes import at_least_float32

DIVERGENCES = ('forward_kl', 'reverse_kl', 'jsd')


@dataclass(frozen=True)
class Divergence:
    r"""Divergence of a student's distribution :math:`q` from a teacher's :math:`p`.

    * ``'forward_kl'``: :math:`\mathrm{KL}(p \| q)`;
    * ``'reverse_kl'``: :math:`\mathrm{KL}(q \| p)`;
    * ``'jsd'``: :math:`\beta \mathrm{KL}(p \| m) + (1 - \beta) \mathrm{KL}(q \| m)`
      with :math:`m = \beta p + (1 - \beta) q`, the generalised Jensen-Shannon
      divergence (Agarwal et al., "On-Policy Distillation of Language Models", 2024,
      Eq. 1). It is symmetric for :math:`\beta = 0.5` and never exceeds log 2.

    All are multiplied by :math:`\tau^2`, which keeps the gradient's size independent
    of the temperature.

    Args:
        kind: Name in :data:`DIVERGENCES`.
        temperature: :math:`\tau` > 0, which softens both distributions.
        beta: :math:`\beta` of ``'jsd'``, between 0 and 1; None for 0.5, and for the
            other divergences, which have none.

    Raises:
        ValueError: An argument is not accepted.
    """

    kind: str = 'forward_kl'
    temperature: float = 1.0
    beta: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in DIVERGENCES:
            raise ValueError(
                f'divergence={self.kind!r} must be one of {", ".join(DIVERGENCES)}.'
            )
        if not self.temperature > 0:
            raise ValueError(f'temperature={self.temperature} must be greater than 0.')
        if self.beta is None:
            return
        if self.kind != 'jsd':
            raise ValueError(
                f'beta={self.beta} has no effect on divergence={self.kind!r}; leave it '
                "out, or set divergence='jsd'."
            )
        if not 0 < self.beta < 1:
            raise ValueError(
                f'beta={self.beta} must lie between 0 and 1, both excluded.'
            )

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The divergence of each row.

        A class with teacher probability 0, because its logit is -inf or the lowest
        number of its dtype, adds 0 to the forward KL and its gradient, whatever the
        student's probability. The reverse KL is infinite there unless the student
        excludes the class as well. A row in which the teacher excludes every class has
        divergence 0. A class that only the student excludes makes the forward KL
        infinite.

        Args:
            student, teacher: Logits ``[..., V]``.

        Returns:
            ``[...]``, float32, or float64 if both are.
        """
        teacher = at_least_float32(teacher)
        silent = teacher.amax(-1, keepdim=True) == -torch.inf
        log_p = F.log_softmax(teacher.masked_fill(silent, 0) / self.temperature, dim=-1)
        log_q = F.log_softmax(at_least_float32(student) / self.temperature, dim=-1)
        return self.of_log_probs(log_q, log_p).masked_fill(silent.squeeze(-1), 0)

    def of_log_probs(self, student: Tensor, teacher: Tensor) -> Tensor:
        r"""The divergence of rows ``[..., V]`` of softened log-probabilities."""
        if self.kind == 'forward_kl':
            divergence = kl_of_log_probs(student, teacher)
        elif self.kind == 'reverse_kl':
            divergence = kl_of_log_probs(teacher, student)
        else:
            divergence = self._jsd(student, teacher)
        return self.temperature**2 * divergence

    def _jsd(self, student: Tensor, teacher: Tensor) -> Tensor:
        beta = torch.tensor(0.5 if self.beta is None else self.beta).double()
        # If both probabilities are 0, so is the mixture; the gradient of its logarithm
        # would be NaN.
        both = torch.maximum(student, teacher) == -torch.inf
        mixture = torch.logaddexp(
            teacher.masked_fill(both, 0) + beta.log().item(),
            student.masked_fill(both, 0) + (1 - beta).log().item(),
        )
        beta = beta.item()
        return beta * kl_of_log_probs(mixture, teacher) + (1 - beta) * kl_of_log_probs(
            mixture, student
        )


def kl_of_logits(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    r""":math:`\tau^2 \mathrm{KL}(p_T \| p_S)` of each row of logits.

    See :class:`Divergence` for arguments and result.
    """
    return Divergence(temperature=temperature)(student, teacher)


def kl_of_log_probs(student: Tensor, teacher: Tensor) -> Tensor:
    r""":math:`\mathrm{KL}(p_T \| p_S)` of rows ``[..., V]`` of log-probabilities.

    Entries with teacher probability 0 add 0, see :class:`Divergence`.
    """
    probability = teacher.exp()
    # Masked rather than multiplied by 0, which would turn an infinite difference into
    # NaN, in the backward pass too.
    ratio = (teacher - student).masked_fill(probability == 0, 0)
    return (probability * ratio).sum(-1)
