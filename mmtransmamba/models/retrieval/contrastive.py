"""The symmetric contrastive loss of CLIP over the batches of all ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtransmamba.models.retrieval.gather import gather_rows
from mmtransmamba.models.retrieval.pairs import PairEmbeddings, ids_as_numbers
from mmtransmamba.registry import MODELS

MAX_SCALE = 100.0
"""Upper bound of the scale, CLIP's."""


@MODELS.register_module()
class ContrastiveLoss(nn.Module):
    r"""Cross-entropy of finding the video of a caption, and the caption of a video.

    .. math:: L = -\frac{1}{2N} \sum_i \left(
        \log \frac{e^{s\, t_i v_i}}{\sum_j e^{s\, t_i v_j}} +
        \log \frac{e^{s\, t_i v_i}}{\sum_j e^{s\, t_j v_i}} \right)

    over the N pairs of all ranks, where each rank computes the rows of its own pairs.
    The scale s, the inverse temperature, is learned and at most :data:`MAX_SCALE`.
    Other pairs of the same video are not wrong answers, so the sums exclude them;
    CLIP4Clip includes them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.0))

    def no_weight_decay(self) -> set[str]:
        return {'log_scale'}

    def start_from(self, log_scale: Tensor) -> None:
        """Start from a model's own scale, CLIP's."""
        with torch.no_grad():
            self.log_scale.copy_(log_scale.clamp(max=math.log(MAX_SCALE)))

    def scale(self) -> Tensor:
        """The scale, a scalar."""
        if self.training:
            # Clamp the parameter itself: beyond a clamp of its value, it would have
            # no gradient and never return.
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(MAX_SCALE))
        return self.log_scale.exp()

    def forward(
        self, pairs: PairEmbeddings, video_ids: Sequence[str] | None = None
    ) -> Tensor:
        """The loss; its mean over the ranks is the loss of all their pairs.

        Args:
            pairs: Pairs of this rank.
            video_ids: Video of each pair; by default all are different.
        """
        target = torch.arange(len(pairs.video), device=pairs.video.device)
        target = target + pairs.begin
        wrong_answer = None
        if video_ids is not None:
            wrong_answer = _same_video(video_ids, target)
        total = 0.0
        for logits in pairs.logits():
            if wrong_answer is not None:
                logits = logits.masked_fill(wrong_answer, -torch.inf)
            total = total + F.cross_entropy(logits, target, reduction='sum')
        return total / 2 * pairs.row_weight


def _same_video(video_ids: Sequence[str], target: Tensor) -> Tensor:
    """Mask of other pairs with the row's video, ``[b, N]``."""
    own = ids_as_numbers(video_ids, target.device)
    every, _ = gather_rows(own[:, None])
    same = own[:, None] == every.T
    return same.scatter(1, target[:, None], False)
