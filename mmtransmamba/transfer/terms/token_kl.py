"""The term on next-token distributions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtransmamba.models.divergence import Divergence
from mmtransmamba.models.fused_linear import fused_linear_loss
from mmtransmamba.models.teachers import CachedTeacher
from mmtransmamba.models.teachers.fingerprints import tokenizer_hash
from mmtransmamba.models.teachers.token_cache import TopLogits, top_divergence
from mmtransmamba.models.token_losses import mean_over_tokens, token_nll
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.terms.base import check_weight
from mmtransmamba.transfer.terms.language import (
    LanguageBatch,
    LanguagePair,
    ModelTerm,
)
from mmtransmamba.transfer.vocabulary import check_shared_tokens, read_tokens

VOCABULARIES = ('checked', 'shared')
TASK = 'task'
"""Name of the cross-entropy among the losses."""


@MODELS.register_module()
class TokenKLTerm(ModelTerm):
    r"""Divergence of next-token distributions, mean over the predicted tokens.

    By default :math:`\tau^2 \mathrm{KL}(p_T \| p_S)`. Padding and prompts are excluded.
    A sum over the sequence, like ``batchmean`` of logits ``[B, L, V]``, would be L
    times as large.

    Vocabularies of one tokenizer may be padded to different sizes, or one side may have
    additional tokens at the end. Then the distributions over the common ids are
    compared. The tokenizers are compared too: they must assign the same tokens to these
    ids.

    Args:
        weight: Factor of the term.
        temperature: :math:`\tau` > 0.
        vocabulary: ``'checked'``: compare the tokenizers if the sizes differ;
            ``'shared'``: assume that the common ids are the same tokens.
        divergence: ``'forward_kl'``, ``'reverse_kl'`` or ``'jsd'``, see
            :class:`~mmtransmamba.models.divergence.Divergence`.
        beta: :math:`\beta` of ``'jsd'``, by default 0.5.
        task_weight: Factor of the cross-entropy of the next token, which is computed
            from the same logits and reported as ``task``. Like :class:`NextTokenTerm`,
            it is independent of ``weight``.
        fused: Compute the loss from the last hidden states and the heads' weights,
            chunk by chunk, so that logits ``[B, L, V]`` never exist; see
            :func:`~mmtransmamba.models.fused_linear.fused_linear_loss`.
    """

    only_outputs = True

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 1.0,
        vocabulary: str = 'checked',
        divergence: str = 'forward_kl',
        beta: float | None = None,
        task_weight: float = 0.0,
        fused: bool = False,
    ) -> None:
        super().__init__(weight)
        if vocabulary not in VOCABULARIES:
            raise ValueError(
                f'TokenKLTerm: vocabulary={vocabulary!r} must be one of '
                f'{", ".join(VOCABULARIES)}.'
            )
        self.vocabulary = vocabulary
        try:
            self.divergence = Divergence(divergence, temperature, beta)
        except ValueError as error:
            raise ValueError(f'TokenKLTerm: {error}') from error
        check_weight(self, task_weight, 'task_weight')
        self.task_weight = task_weight
        self.parts = (TASK,) if task_weight else ()
        self.fused = fused
        self.needs_logits = self.needs_teacher_logits = not fused

    def bind(self, pair: LanguagePair) -> None:
        student, teacher = pair.vocabularies
        self.shared = min(student, teacher)
        if isinstance(pair.teacher, CachedTeacher):
            self._bind_cached(pair)
            return
        if student == teacher or self.vocabulary == 'shared':
            return
        try:
            tables = [
                read_tokens(model, companions)
                for model, companions in zip(
                    (pair.student, pair.teacher), pair.companions, strict=True
                )
            ]
            check_shared_tokens(*tables, self.shared)
        except ValueError as error:
            raise ValueError(
                f'TokenKLTerm: the student knows {student} tokens, the teacher '
                f'{teacher}, and that the {self.shared} ids both have mean the same '
                f"cannot be confirmed: {error}. If they do, set vocabulary='shared'."
            ) from error

    def _bind_cached(self, pair: LanguagePair) -> None:
        """Check that a recording has this student's tokens and this temperature.

        Raises:
            ValueError: It does not; the message names the difference.
        """
        manifest, folder = pair.teacher.manifest, pair.teacher.cache.folder
        student, teacher = pair.vocabularies
        if student < teacher:
            raise ValueError(
                f'TokenKLTerm: the teacher cache "{folder}" has {teacher} tokens, the '
                f'student only {student}; recorded tokens cannot be left out.'
            )
        if (
            manifest.k < manifest.vocabulary
            and manifest.temperature != self.divergence.temperature
        ):
            raise ValueError(
                f'TokenKLTerm: temperature={self.divergence.temperature}, but the '
                f'teacher cache "{folder}" was recorded with temperature='
                f'{manifest.temperature}.'
            )
        if self.vocabulary == 'shared':
            return
        recorded = manifest.hashes['tokenizer']
        try:
            found = tokenizer_hash(read_tokens(pair.student, pair.companions[0]))
        except ValueError as error:
            if recorded is None and student == teacher:
                return
            reason = str(error)
        else:
            if found == recorded:
                return
            reason = 'their hashes differ'
        raise ValueError(
            f"TokenKLTerm: the student's tokenizer is not the tokenizer of the teacher "
            f'cache "{folder}": {reason}. If their ids mean the same tokens, set '
            "vocabulary='shared'."
        )

    def forward(self, batch: LanguageBatch) -> dict[str, Tensor]:
        if self.fused:
            return self._fused(batch)
        if batch.teacher_top is not None:
            top = batch.teacher_top_rows
            kl = mean_over_tokens(
                self._from_cache, batch.rows, top.ids, top.logits, top.rest
            )
        else:
            kl = mean_over_tokens(self._divergence, batch.rows, batch.teacher_rows)
        losses = {'': self.weight * kl}
        if self.task_weight:
            task = mean_over_tokens(token_nll, batch.rows, batch.targets)
            losses[TASK] = self.task_weight * task
        return losses

    @property
    def is_active(self) -> bool:
        """Whether one of its losses is left: the cross-entropy does not fade."""
        return super().is_active or self.task_weight > 0

    def scaled(self, part: str, loss: Tensor) -> Tensor:
        """The divergence times the scale, the cross-entropy as it is."""
        if part == TASK or self.joins_gradients:
            return loss
        return super().scaled(part, loss)

    @property
    def joins_gradients(self) -> bool:
        """Whether the gradients of both losses are computed as one."""
        return self.fused and self.task_weight > 0

    def unit_of(self, part: str) -> str:
        """The predicted tokens, for the cross-entropy as well."""
        return self.unit

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        # Cut here, chunk by chunk, so that nothing is copied.
        return self.divergence(student[:, : self.shared], teacher[:, : self.shared])

    def _from_cache(self, student: Tensor, *top: Tensor) -> Tensor:
        student = student[:, : self.shared]
        return top_divergence(self.divergence, student, TopLogits(*top), self.shared)

    def _fused(self, batch: LanguageBatch) -> dict[str, Tensor]:
        head = batch.last[1]
        if batch.teacher_top is not None:
            top = batch.teacher_top_rows
            rows, compare = (top.ids, top.logits, top.rest), self._from_cache
        else:
            teacher_head = batch.teacher_last[1]
            weight, bias = (
                None if p is None else p.detach()[: self.shared]
                for p in (teacher_head.weight, teacher_head.bias)
            )
            rows = (batch.teacher_last_rows,)

            def compare(student: Tensor, states: Tensor) -> Tensor:
                return self._divergence(student, F.linear(states, weight, bias))

        # Where the losses have one gradient, the scale of one belongs in here.
        weight_of_kl = self.weight * (self.scale if self.joins_gradients else 1.0)

        def loss(logits: Tensor, targets: Tensor, *teacher: Tensor) -> Tensor:
            parts = [weight_of_kl * compare(logits, *teacher)]
            if self.task_weight:
                parts.append(self.task_weight * token_nll(logits, targets))
            return torch.stack(parts, -1)

        total, parts = fused_linear_loss(
            loss, batch.last_rows, head.weight, head.bias, batch.targets, *rows
        )
        if not self.task_weight:
            return {'': total}
        # The gradients are computed together: the first loss carries both.
        return {'': total - parts[1], TASK: parts[1]}
