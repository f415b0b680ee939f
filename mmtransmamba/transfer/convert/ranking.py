"""Ranking of layers by the cost of converting them to Mamba, measured on text."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.folders.pretrained import Pretrained
from mmtransmamba.models.language.layer_choice import count_layers_of
from mmtransmamba.transfer.convert.candidates import Candidates, check_ids
from mmtransmamba.transfer.convert.layer_ranking import LayerRanking
from mmtransmamba.transfer.convert.probes import text_probes
from mmtransmamba.transfer.convert.spec import Conversion
from mmtransmamba.utils.choices import PROBES


@torch.no_grad()
def rank_layers(
    teacher: Candidates | Pretrained | nn.Module | str | Path,
    batches: Sequence[Tensor],
    conversion: Conversion | None = None,
    count: int | None = None,
    on: str = 'text',
) -> LayerRanking:
    """Rank a model's layers by the cost of converting them, before any training.

    Args:
        teacher: A transformers causal language model, or its folder, or the prepared
            :class:`~mmtransmamba.transfer.convert.candidates.Candidates`. A model is
            changed during the ranking, and restored afterwards.
        batches: Token ids ``[B, L]`` of calibration text, without padding.
        conversion: How each layer would be converted; its ``layers`` and ``ratio`` are
            ignored. If the student is shallower, only its layers are ranked, within
            the whole teacher. Its ``ranking`` is the method:

            * ``'single'``: each layer is converted alone, which takes one pass per
              layer;
            * ``'greedy'``: the cheapest layer is converted, then the one that is
              cheapest together with it, and so on;
            * ``'recall'`` (HALO, arXiv:2601.22156): each layer alone, by the loss of
              synthetic recall for each nat of KL on text;
            * ``'gates'`` (FlashMorph, arXiv:2606.30562): attention and mixer of every
              layer run side by side, and one gate per layer is learned.
        count: Number of layers to rank with ``'greedy'``; all by default.
        on: What ``'single'``, ``'greedy'`` and ``'gates'`` measure on: ``'text'``, or
            ``'recall'``, see
            :func:`~mmtransmamba.transfer.convert.probes.recall_probes`.

    Raises:
        ValueError: No calibration text, a family that cannot be converted, a student
            of another width, or ``on`` is unknown.
    """
    if not batches:
        raise ValueError('Ranking layers needs calibration text; there is none.')
    if on not in PROBES:
        raise ValueError(f'on={on!r} must be one of {", ".join(PROBES)}.')
    conversion = conversion or Conversion()
    prepared = isinstance(teacher, Candidates)
    own = nullcontext(teacher) if prepared else Candidates(teacher, conversion)
    with own as candidates:
        check_ids(batches, candidates.vocab_size)
        text = text_probes(batches)
        tokens = sum(batch.numel() for batch in batches)
        needs_recall = on == 'recall' or conversion.ranking == 'recall'
        recall = candidates.recall(tokens, conversion.seed) if needs_recall else []
        measured = text if on == 'text' else recall
        ranking = LayerRanking(
            conversion.ranking, conversion.init, tokens=tokens, on=on
        )
        everything = candidates.layers
        if conversion.ranking == 'greedy':
            for _ in range(count or len(everything)):
                rest = [i for i in everything if i not in ranking.order]
                costs = candidates.costs(measured, ranking.order, rest)
                best = min(rest, key=costs.__getitem__)
                ranking.order.append(best)
                ranking.kl.append(costs[best])
            return ranking
        costs = candidates.costs(measured, [], everything)
        scores: dict[int, float] = {}
        if conversion.ranking == 'recall':
            costs = costs if on == 'text' else candidates.costs(text, [], everything)
            scores = _recall_scores(costs, candidates.costs(recall, [], everything))
        elif conversion.ranking == 'gates':
            scores = candidates.learn_gates(measured)
        by = scores or costs
        ranking.order = sorted(everything, key=lambda i: (by[i], costs[i]))
        ranking.kl = [costs[i] for i in ranking.order]
        ranking.scores = [scores[i] for i in ranking.order if scores]
    return ranking


def _recall_scores(
    text: dict[int, float], recall: dict[int, float]
) -> dict[int, float]:
    """HALO's importance of each layer.

    The drop of recall from that of the best layer, over the same drop on text, at most
    50, as in the published code. Divergences stand in for its accuracies, which are
    too coarse for small models.
    """
    least, least_recall = min(text.values()), min(recall.values())
    return {
        i: min((recall[i] - least_recall) / (text[i] - least + 1e-10), 50.0)
        for i in text
    }


def cheapest_layers(
    teacher: Pretrained, conversion: Conversion
) -> tuple[list[int], LayerRanking]:
    """The layers that cost least to convert, and the ranking behind the choice.

    Args:
        teacher: A causal language model.
        conversion: The requested conversion, with the calibration text as batches.
    """
    depth = conversion.fields.get('num_hidden_layers', teacher.config.num_hidden_layers)
    count = count_layers_of(conversion.ratio, depth)
    ranking = rank_layers(teacher, conversion.calibration, conversion, count)
    return ranking.first(count), ranking


def read_choice(
    conversion: Conversion, teacher: Any
) -> tuple[Conversion, LayerRanking | None]:
    """The conversion with the layers of its ranking's file, and the ranking.

    Args:
        conversion: Unchanged, and without a ranking, if ``layers`` is not a file.
        teacher: Config of the teacher.

    Raises:
        FileNotFoundError, ValueError: See :meth:`LayerRanking.load`.
    """
    file = conversion.layers
    if not isinstance(file, str) or not file.endswith('.json'):
        return conversion, None
    ranking = LayerRanking.load(file)
    depth = conversion.fields.get('num_hidden_layers', teacher.num_hidden_layers)
    layers = ranking.first(count_layers_of(conversion.ratio, depth))
    return replace(conversion, layers=layers), ranking
