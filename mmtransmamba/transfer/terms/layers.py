"""Terms that compare every layer: whole blocks, and single scan directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.alignment import Aligner, ReverseProjection
from mmtransmamba.transfer.losses import standardize
from mmtransmamba.transfer.terms.base import DistillBatch, Term, TransferPair
from mmtransmamba.transfer.terms.outputs import make_aligner

TARGET_NORMS = ('none', 'center', 'standardize')
DIRECTION_FEATURES = ('inner', 'projected')
ENTROPY = 'entropy'
"""Name of a weighting's regulariser among the losses."""


class WeightedLayersTerm(Term):
    """A sum over layers, weighted by a layer weighting.

    Args:
        weight: Factor of the term.
        loss: Config of a distance in :mod:`mmtransmamba.transfer.losses`.
        weighting: Config of a weighting in :mod:`mmtransmamba.transfer.weighting`.

    Attributes:
        layer_weights: The last step's weights ``[G, N]``, detached; G is 1, or the
            number of directions.
    """

    parts = (ENTROPY,)

    def __init__(
        self,
        weight: float = 1.0,
        loss: dict | None = None,
        weighting: dict | None = None,
    ) -> None:
        super().__init__(weight)
        self.distance = MODELS.build(loss or dict(type='mmtransmamba.CosineDistance'))
        self.weighting = MODELS.build(
            weighting or dict(type='mmtransmamba.UniformWeighting')
        )
        self.layer_weights: Tensor | None = None

    def _weigh(
        self, distances: Tensor, student: Tensor, teacher: Tensor
    ) -> dict[str, Tensor]:
        """Weighted sum of distances ``[G, N]`` given pooled features ``[G, N, C]``."""
        weights = self.weighting(student, teacher)
        self.layer_weights = weights.detach()
        losses = {'': self.weight * (weights * distances).sum()}
        regularizer = self.weighting.regularizer(weights)
        if regularizer is not None:
            losses[ENTROPY] = self.weight * regularizer
        return losses


def _check_target_norm(term: str, target_norm: str) -> str:
    if target_norm not in TARGET_NORMS:
        raise ValueError(
            f'{term}: target_norm={target_norm!r} must be one of '
            f'{", ".join(TARGET_NORMS)}.'
        )
    return target_norm


def _take(tokens: Tensor, index: Tensor | None) -> Tensor:
    """Tokens ``[B, M, C]`` at ``index`` ``[M]``; for None all, without a copy."""
    return tokens if index is None else tokens[:, index]


def _one_width(term: str, dims: list[int]) -> int:
    if len(set(dims)) != 1:
        raise ValueError(
            f'{term}: the teacher layers {sorted(set(dims))} channels wide cannot '
            'supervise together; choose teacher layers of one width (teacher_layer).'
        )
    return dims[0]


@MODELS.register_module()
class LayerTerm(WeightedLayersTerm):
    r"""Tokens after each block against the teacher's (TransMamba Eq. 4 to 6).

    :math:`\sum_i w_i (1 - \cos(F_{T,i}, W_i F_{S,i}))`, the mean over the step's
    tokens, with a learned aligner :math:`W_i` per layer.

    Args:
        weight, loss, weighting: See :class:`WeightedLayersTerm`.
        target_norm: See :func:`mmtransmamba.transfer.losses.standardize`.
    """

    def __init__(
        self,
        weight: float = 1.0,
        loss: dict | None = None,
        weighting: dict | None = None,
        target_norm: str = 'none',
    ) -> None:
        super().__init__(weight, loss, weighting)
        self.target_norm = _check_target_norm('LayerTerm', target_norm)

    def bind(self, pair: TransferPair) -> None:
        width = _one_width('LayerTerm', pair.target_dims)
        self.aligners = nn.ModuleList(Aligner(dim, width) for dim in pair.layer_dims)
        self.weighting.bind(len(self.aligners), width)

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        distances, pooled_student, pooled_teacher = [], [], []
        targets: dict[tuple, Tensor] = {}
        for aligner, feature, layer in zip(
            self.aligners, batch.student.layers, batch.layer_map, strict=True
        ):
            index = batch.token_index(feature.tokens.shape[1], feature.tokens.device)
            tokens = _take(feature.tokens, index)
            key = (layer, feature.grid)
            if key not in targets:
                target = _take(batch.teacher_tokens.on_grid(*key), index)
                targets[key] = standardize(target, self.target_norm)
            student = aligner(tokens)
            distances.append(self.distance(student, targets[key]).mean())
            pooled_student.append(student.detach().float().mean((0, 1)))
            pooled_teacher.append(targets[key].mean((0, 1)))
        return self._weigh(
            torch.stack(distances)[None],
            torch.stack(pooled_student)[None],
            torch.stack(pooled_teacher)[None],
        )


@MODELS.register_module()
class PooledLayerTerm(WeightedLayersTerm):
    """Mean token of the first N-1 blocks against the teacher's final feature.

    The layer loss of the TransMamba authors' released code, which uses it with
    :class:`ChannelCrossEntropy` and the literal layer index as weight.

    Args:
        weight, loss, weighting: See :class:`WeightedLayersTerm`.
        align: Map each mean by a learned aligner; without one, as in that code,
            the widths must agree.
    """

    def __init__(
        self,
        weight: float = 1.0,
        loss: dict | None = None,
        weighting: dict | None = None,
        align: bool = False,
    ) -> None:
        super().__init__(weight, loss, weighting)
        self.align = align

    def bind(self, pair: TransferPair) -> None:
        self.aligners = nn.ModuleList(
            make_aligner('PooledLayerTerm', dim, pair.teacher.feature_dim, self.align)
            for dim in pair.layer_dims[:-1]
        )
        self.weighting.bind(len(self.aligners), pair.teacher.feature_dim)

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        target = batch.teacher.feature
        pooled = [
            aligner(feature.tokens.mean(1))
            for aligner, feature in zip(
                self.aligners, batch.student.layers[:-1], strict=True
            )
        ]
        distances = torch.stack([self.distance(p, target).mean() for p in pooled])
        means = torch.stack([p.detach().float().mean(0) for p in pooled])
        target_mean = target.float().mean(0).expand_as(means)
        return self._weigh(distances[None], means[None], target_mean[None])


@MODELS.register_module()
class DirectionTerm(WeightedLayersTerm):
    r"""Each scan direction against the teacher in its order (Eq. 10 and 11).

    :math:`\sum_k \sum_i w_{k,i} (1 - \cos(R_k F_{T,i}[\pi_k], W_i F_{S,i,k}))`:
    the teacher's tokens are permuted to direction k's scan order :math:`\pi_k` and
    mapped by its reverse-aware projection :math:`R_k`, the identity for the first
    direction; a learned aligner :math:`W_i` per layer, shared by its directions,
    maps the direction's output to the teacher's width.

    Args:
        weight, loss, weighting: See :class:`WeightedLayersTerm`.
        feature: ``'inner'``, the scan's own output, or ``'projected'``, its
            contribution to the block through gate and output projection.
        target_norm: See :func:`mmtransmamba.transfer.losses.standardize`.
    """

    needs_directions = True

    def __init__(
        self,
        weight: float = 1.0,
        loss: dict | None = None,
        weighting: dict | None = None,
        feature: str = 'inner',
        target_norm: str = 'none',
    ) -> None:
        super().__init__(weight, loss, weighting)
        if feature not in DIRECTION_FEATURES:
            raise ValueError(
                f'DirectionTerm: feature={feature!r} must be one of '
                f'{", ".join(DIRECTION_FEATURES)}.'
            )
        self.feature = feature
        self.target_norm = _check_target_norm('DirectionTerm', target_norm)

    def bind(self, pair: TransferPair) -> None:
        width = _one_width('DirectionTerm', pair.target_dims)
        if len(pair.direction_dims) != len(pair.layer_dims):
            raise ValueError(
                f'DirectionTerm: the student has {len(pair.layer_dims)} LayerTaps but '
                f'{len(pair.direction_dims)} DirectionTaps; every block needs one of '
                'each.'
            )
        if len(set(pair.num_directions)) > 1:
            raise ValueError(
                'DirectionTerm: all blocks must scan in the same number of directions, '
                f'not {pair.num_directions}.'
            )
        inner = self.feature == 'inner'
        dims = pair.direction_dims if inner else pair.layer_dims
        self.aligners = nn.ModuleList(Aligner(dim, width) for dim in dims)
        self.reverse = ReverseProjection(width, pair.num_directions[0])
        self.weighting.bind(len(self.aligners), width)

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        features = batch.student.directions
        keys = [
            (layer, feature.grid)
            for layer, feature in zip(batch.layer_map, features, strict=True)
        ]
        targets: dict[tuple, Tensor] = {}
        for key, feature in zip(keys, features, strict=True):
            if key not in targets:
                tokens = batch.teacher_tokens.on_grid(*key)[:, feature.token_index]
                targets[key] = standardize(tokens, self.target_norm)
        targets = dict(zip(targets, self.reverse(list(targets.values())), strict=True))

        distances, pooled_student, pooled_teacher = [], [], []
        for aligner, feature, key in zip(self.aligners, features, keys, strict=True):
            values = feature.values
            if self.feature == 'projected':
                values = feature.project(values)
            student = aligner(values)
            distances.append(self.distance(student, targets[key]).mean((0, 2)))
            pooled_student.append(student.detach().float().mean((0, 2)))
            pooled_teacher.append(targets[key].detach().mean((0, 2)))
        return self._weigh(
            torch.stack(distances, dim=1),
            torch.stack(pooled_student, dim=1),
            torch.stack(pooled_teacher, dim=1),
        )
