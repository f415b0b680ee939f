"""A term on the similarity of captions and videos."""

from __future__ import annotations

from torch import Tensor

from mmtransmamba.models.retrieval import CLIP4ClipTeacher
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.losses import kl_divergence
from mmtransmamba.transfer.terms.base import DistillBatch, Term, TransferPair


@MODELS.register_module()
class SimilarityTerm(Term):
    r"""KL divergence of the rows and columns of the similarity matrix.

    .. math:: \frac{\tau^2}{2N} \sum_i \left(
        \mathrm{KL}(p_T(\cdot | t_i) \| p_S(\cdot | t_i)) +
        \mathrm{KL}(p_T(\cdot | v_i) \| p_S(\cdot | v_i)) \right)

    where :math:`p(\cdot | t_i)` is the softmax over the videos of all ranks of their
    scaled cosines with caption i, :math:`p(\cdot | v_i)` that over the captions, and
    each model has its own scale.

    Args:
        weight: Factor of the term.
        temperature: :math:`\tau`, which softens all distributions; > 0.
    """

    def __init__(self, weight: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__(weight)
        if temperature <= 0:
            raise ValueError(
                f'SimilarityTerm: temperature={temperature} must be greater than 0.'
            )
        self.temperature = temperature

    def bind(self, pair: TransferPair) -> None:
        if not isinstance(pair.teacher, CLIP4ClipTeacher):
            raise ValueError(
                'SimilarityTerm: it compares similarities of captions and videos, '
                f'which the teacher {type(pair.teacher).__name__} does not give; '
                'accepted: CLIP4ClipTeacher.'
            )

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        pairs = batch.extra
        both = [
            kl_divergence(student, teacher, self.temperature)
            for student, teacher in zip(
                pairs.logits(), batch.teacher.pairs.logits(), strict=True
            )
        ]
        # The divergence is a mean over this rank's rows.
        share = pairs.row_weight * len(pairs.video)
        return {'': self.weight * share * sum(both) / 2}
