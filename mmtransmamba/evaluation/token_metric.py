"""Metrics for a language model's predictions and their agreement with a teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from mmtransmamba.registry import METRICS


@METRICS.register_module()
class TokenMetric(BaseMetric):
    """Means over all learned tokens, regardless of the length of a sequence.

    * ``token/nll``: negative log-likelihood in nats, and ``token/ppl``, the perplexity;
    * ``token/accuracy``: how often the most likely token is the right one, in percent;
    * with a teacher, ``token/kl``: Kullback-Leibler divergence of its distribution from
      the model's in nats, and ``token/agreement``: how often both models have the same
      most likely token, in percent.

    The input is the output of
    :func:`~mmtransmamba.models.token_losses.score_tokens` for each sequence.

    Args:
        **kwargs: Arguments of mmengine's ``BaseMetric``.
    """

    default_prefix = 'token'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """Means of the sums in ``results``.

        Raises:
            ValueError: There are no learned tokens.
        """
        sums = {key: sum(r[key] for r in results) for key in (results or [{}])[0]}
        tokens = sums.get('tokens', 0)
        if tokens == 0:
            raise ValueError(
                'TokenMetric: not one token is predicted; all labels are negative, or '
                'there are none.'
            )
        nll = sums['nll'] / tokens
        metrics = dict(
            nll=nll,
            # Beyond this, a float overflows; such a model predicts nothing useful
            # anyway.
            ppl=math.exp(min(nll, 700)),
            accuracy=100 * sums['correct'] / tokens,
        )
        if 'kl' in sums:
            metrics['kl'] = sums['kl'] / tokens
            metrics['agreement'] = 100 * sums['agree'] / tokens
        return metrics
