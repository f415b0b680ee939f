"""Terms of other distillation methods, for comparison."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.terms.base import DistillBatch, Term, TransferPair
from mmtransmamba.transfer.terms.outputs import check_describes_images


@MODELS.register_module()
class RelationTerm(Term):
    """Relational distillation of final features (Park et al., 2019, RKD).

    The student's distances between the images of a batch, and the angles of their
    triples, should equal the teacher's. It learns no map, so the widths may differ.

    Args:
        weight: Factor of the term.
        distance: Factor of the distances, 25 in the paper's classification.
        angle: Factor of the angles, 50 in the paper; 0 omits them, whose cost grows
            with the cube of the batch size.
    """

    def __init__(
        self, weight: float = 1.0, distance: float = 25.0, angle: float = 50.0
    ) -> None:
        super().__init__(weight)
        for name, value in (('distance', distance), ('angle', angle)):
            if not value >= 0:
                raise ValueError(
                    f'RelationTerm: {name}={value} must be a number, and not negative.'
                )
        self.distance = distance
        self.angle = angle

    def bind(self, pair: TransferPair) -> None:
        check_describes_images('RelationTerm', pair)

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        student, teacher = batch.feature.float(), batch.teacher.feature.float()
        # Products in half precision lose the differences of features that are alike.
        with torch.autocast(student.device.type, enabled=False):
            loss = self.distance * F.smooth_l1_loss(
                _distances(student), _distances(teacher)
            )
            if self.angle:
                loss = loss + self.angle * F.smooth_l1_loss(
                    _angles(student), _angles(teacher)
                )
        return {'': self.weight * loss}


@MODELS.register_module()
class AttentionMapTerm(Term):
    """Attention transfer (Zagoruyko and Komodakis, 2017) after the last block.

    The map of an image is the sum of squares over channels at each token, normalised
    to length 1. The loss is the squared distance between student's and teacher's map,
    averaged over images.

    Args:
        weight: Factor of the term.
    """

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        feature = batch.student.layers[-1]
        target = batch.teacher_tokens.on_grid(batch.layer_map[-1], feature.grid)
        difference = _attention_map(feature.tokens) - _attention_map(target)
        return {'': self.weight * difference.square().sum(1).mean()}


def _distances(features: Tensor) -> Tensor:
    """Distances ``[B, B]`` of rows ``[B, C]``, divided by the mean over pairs."""
    features = features - features.mean(0)
    squares = features.square().sum(1)
    between = squares[:, None] + squares - 2 * features @ features.T
    # The square root has no gradient at the zeros of the diagonal.
    same = torch.eye(len(features), dtype=torch.bool, device=features.device)
    lengths = between.clamp_min(1e-12).sqrt().masked_fill(same, 0)
    pairs = max(1, len(features) * (len(features) - 1))
    return lengths / (lengths.sum() / pairs).clamp_min(1e-12)


def _angles(features: Tensor) -> Tensor:
    """Cosines ``[B, B, B]`` of the angles at each row in every triple of rows."""
    directions = F.normalize(features[None] - features[:, None], dim=2)
    return directions @ directions.mT


def _attention_map(tokens: Tensor) -> Tensor:
    """Maps ``[B, L]`` of length 1 of tokens ``[B, L, C]``."""
    return F.normalize(tokens.float().square().sum(2), dim=1)
