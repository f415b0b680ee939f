"""Metrics of text-video retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric

from mmtransmamba.evaluation.retrieval_ranks import rank_pairs
from mmtransmamba.registry import METRICS


@METRICS.register_module()
class TextVideoRetrievalMetric(BaseMetric):
    """Recalls and ranks of text-video retrieval in both directions.

    * ``retrieval/t2v_R@1``, ``R@5``, ``R@10``: share of captions, in percent, whose
      video is among the first 1, 5 or 10 videos by cosine;
    * ``retrieval/t2v_MdR`` and ``MeanR``: median and mean rank of the video, from 1;
    * ``retrieval/v2t_...``: the same for videos and their best-ranked captions.

    Samples with the same ``video_id`` are one video with the captions of all of them.
    Equal similarities are counted as their expectation over all orders, see
    :class:`~mmtransmamba.evaluation.retrieval_ranks.Ranks`. The full similarity matrix
    is never held in memory.

    Args:
        recall_at: Numbers of top answers to consider.
        block_size: Side of the blocks of the similarity matrix.
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    default_prefix = 'retrieval'

    def __init__(
        self,
        recall_at: Sequence[int] = (1, 5, 10),
        block_size: int = 2048,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if block_size < 1 or min(recall_at, default=0) < 1:
            raise ValueError(
                f'TextVideoRetrievalMetric: block_size={block_size} and all of '
                f'recall_at={tuple(recall_at)} must be at least 1.'
            )
        self.recall_at = tuple(recall_at)
        self.block_size = block_size

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the features of a batch.

        Args:
            data_batch: Not used.
            data_samples: Per video ``video_feat`` ``[D]``, ``text_feat`` ``[n, D]``
                and, if it has one, ``video_id``.
        """
        for sample in data_samples:
            features = {
                key: sample[key].detach().float().cpu()
                for key in ('video_feat', 'text_feat')
            }
            self.results.append(features | dict(video_id=sample.get('video_id')))

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Recalls and ranks over all samples.

        Raises:
            ValueError: There are no samples, a video has no caption, the features have
                different widths, or a feature is not finite.
        """
        if not results:
            raise ValueError(
                'TextVideoRetrievalMetric: there is not one video to evaluate.'
            )
        widths = {
            result[key].shape[-1]
            for result in results
            for key in ('video_feat', 'text_feat')
        }
        if len(widths) > 1:
            raise ValueError(
                'TextVideoRetrievalMetric: video_feat and text_feat of all videos must '
                f'have one width, not {sorted(widths)}.'
            )
        videos, texts, video_of_text = [], [], []
        known: dict[str, int] = {}
        for result in results:
            name = result['video_id']
            number = len(videos) if name is None else known.get(name, len(videos))
            if number == len(videos):
                videos.append(result['video_feat'])
                if name is not None:
                    known[name] = number
            texts.append(result['text_feat'])
            video_of_text.extend([number] * len(result['text_feat']))
        device = get_device()
        ranks = rank_pairs(
            F.normalize(torch.cat(texts).to(device), dim=-1),
            F.normalize(torch.stack(videos).to(device), dim=-1),
            torch.tensor(video_of_text, dtype=torch.int64, device=device),
            self.block_size,
        )
        metrics = {}
        for direction, found in zip(('t2v', 'v2t'), ranks, strict=True):
            for k in self.recall_at:
                metrics[f'{direction}_R@{k}'] = found.recall(k)
            metrics[f'{direction}_MdR'] = found.median()
            metrics[f'{direction}_MeanR'] = found.mean()
        return metrics
