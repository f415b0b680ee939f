"""Terms on a model's final outputs: logits and final feature."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.divergence import Divergence
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.alignment import Aligner
from mmtransmamba.transfer.terms.base import DistillBatch, Term, TransferPair


@MODELS.register_module()
class LogitsTerm(Term):
    """Divergence of the class distributions, mean over the images.

    Args:
        weight: Factor of the term.
        temperature: Softens both distributions; > 0.
        divergence: ``'forward_kl'``, ``'reverse_kl'`` or ``'jsd'``, see
            :class:`~mmtransmamba.models.divergence.Divergence`.
        beta: Parameter of ``'jsd'``, by default 0.5.
    """

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 1.0,
        divergence: str = 'forward_kl',
        beta: float | None = None,
    ) -> None:
        super().__init__(weight)
        try:
            self.divergence = Divergence(divergence, temperature, beta)
        except ValueError as error:
            raise ValueError(f'LogitsTerm: {error}') from error

    def bind(self, pair: TransferPair) -> None:
        check_classes('LogitsTerm', pair)

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        loss = self.divergence(batch.logits, batch.teacher.logits)
        return {'': self.weight * loss.mean()}


@MODELS.register_module()
class HardLabelTerm(Term):
    """Cross-entropy with the class that the teacher finds most likely.

    The hard-label distillation of Touvron et al., "Training data-efficient image
    transformers & distillation through attention", 2021, Eq. 3, without their
    distillation token: the student's own head learns from both labels.

    Args:
        weight: Factor of the term.
    """

    def bind(self, pair: TransferPair) -> None:
        check_classes('HardLabelTerm', pair)

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        labels = batch.teacher.logits.argmax(1)
        return {'': self.weight * F.cross_entropy(batch.logits.float(), labels)}


@MODELS.register_module()
class FeatureTerm(Term):
    """Distance of the student's final feature to the teacher's.

    Args:
        weight: Factor of the term.
        loss: Config of a distance in :mod:`mmtransmamba.transfer.losses`.
        align: Map the student's feature by a learned :class:`Aligner`; without one
            the widths must agree.
    """

    def __init__(
        self,
        weight: float = 1.0,
        loss: dict | None = None,
        align: bool = True,
    ) -> None:
        super().__init__(weight)
        self.distance = MODELS.build(loss or dict(type='mmtransmamba.CosineDistance'))
        self.align = align

    def bind(self, pair: TransferPair) -> None:
        check_describes_images('FeatureTerm', pair)
        self.aligner = make_aligner(
            'FeatureTerm', pair.feature_dim, pair.teacher.feature_dim, self.align
        )

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        loss = self.distance(self.aligner(batch.feature), batch.teacher.feature)
        return {'': self.weight * loss.mean()}


def check_classes(term: str, pair: TransferPair) -> None:
    """Refuse a teacher whose logits do not match the student's classes.

    Raises:
        ValueError: It has no logits, or another number of classes.
    """
    check_describes_images(term, pair)
    classes = pair.teacher.num_classes
    if classes is None:
        raise ValueError(
            f'{term}: the teacher has no classification head. Give it one, or leave '
            'this term out.'
        )
    if classes != pair.num_classes and not pair.teacher.ordered_by_names:
        raise ValueError(
            f"{term}: the teacher knows {classes} classes, the student's head "
            f'has num_classes={pair.num_classes}. Fine-tune the teacher on the '
            'target set, choose from its classes (class_order), or leave this term '
            'out.'
        )


def check_describes_images(term: str, pair: TransferPair) -> None:
    """Refuse a student that has no output for whole images.

    Raises:
        ValueError: It is a segmentor, a detector or similar.
    """
    if pair.feature_dim is None:
        raise ValueError(
            f'{term}: the student {pair.student} has no feature and no logits of whole '
            'images to compare with the teacher. Leave this term out (None); layer and '
            'direction terms compare its backbone.'
        )


def make_aligner(term: str, source: int, target: int, align: bool) -> nn.Module:
    """An :class:`Aligner`, or the identity if no learned map is requested.

    Raises:
        ValueError: No map is requested, but the widths differ.
    """
    if align:
        return Aligner(source, target)
    if source != target:
        raise ValueError(
            f'{term}: the student is {source} wide and the teacher {target}; this '
            'needs align=True.'
        )
    return nn.Identity()
