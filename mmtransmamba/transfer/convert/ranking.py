"""Ranking of layers and heads by the cost of converting them to Mamba."""

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
from mmtransmamba.transfer.convert.candidates import (
    Candidates,
    Unit,
    check_ids,
    kv_heads,
)
from mmtransmamba.transfer.convert.head_choice import convert_heads, mixer_of_heads
from mmtransmamba.transfer.convert.layer_ranking import LayerRanking
from mmtransmamba.transfer.convert.probes import text_probes
from mmtransmamba.transfer.convert.spec import Conversion
from mmtransmamba.utils.choices import PROBES, UNITS


@torch.no_grad()
def rank_layers(
    teacher: Candidates | Pretrained | nn.Module | str | Path,
    batches: Sequence[Tensor],
    conversion: Conversion | None = None,
    count: int | None = None,
    on: str = 'text',
    unit: str = 'layers',
) -> LayerRanking:
    """Rank layers, or their heads, by the cost of converting them without training.

    Args:
        teacher: A transformers causal language model, or its folder, or the prepared
            :class:`~mmtransmamba.transfer.convert.candidates.Candidates`. A model is
            changed during the ranking, and restored afterwards.
        batches: Token ids ``[B, L]`` of calibration text, without padding.
        conversion: How each layer would be converted, after a calibration on the text
            with ``init='calibrate'``; its ``layers`` and ``ratio`` are ignored. If the
            student is shallower, only its layers are ranked, within the whole teacher.
            Its ``ranking`` is the method:

            * ``'single'``: each layer is converted alone, which takes one pass per
              layer;
            * ``'greedy'``: the cheapest layer is converted, then the one that is
              cheapest together with it, and so on;
            * ``'recall'`` (HALO, arXiv:2601.22156): each layer alone, by the loss of
              synthetic recall for each nat of KL on text;
            * ``'gates'`` (FlashMorph, arXiv:2606.30562): attention and mixer of every
              layer run side by side, and one gate per layer is learned.
        count: Number of layers or heads to rank with ``'greedy'``; all by default.
        on: What ``'single'``, ``'greedy'`` and ``'gates'`` measure on: ``'text'``, or
            ``'recall'``, see
            :func:`~mmtransmamba.transfer.convert.probes.recall_probes`.
        unit: ``'layers'``, or ``'heads'``: every key-value head of a layer by itself,
            with its query heads, while the others stay attention.

    Raises:
        ValueError: No calibration text, a family that cannot be converted, a student
            of another width, a mixer without heads, or ``on`` or ``unit`` is unknown.
    """
    if not batches:
        raise ValueError('Ranking layers needs calibration text; there is none.')
    if on not in PROBES:
        raise ValueError(f'on={on!r} must be one of {", ".join(PROBES)}.')
    if unit not in UNITS:
        raise ValueError(f'unit={unit!r} must be one of {", ".join(UNITS)}.')
    conversion = conversion or Conversion()
    if unit == 'heads':
        mixer_of_heads(conversion)
    prepared = isinstance(teacher, Candidates)
    own = nullcontext(teacher) if prepared else Candidates(teacher, conversion)
    with own as candidates:
        check_ids(batches, candidates.vocab_size)
        if conversion.initialisation.calibrated and not prepared:
            candidates.fit(batches, conversion.calibration_steps, conversion.seed)
        text = text_probes(batches)
        tokens = sum(batch.numel() for batch in batches)
        needs_recall = on == 'recall' or conversion.ranking == 'recall'
        recall = candidates.recall(tokens, conversion.seed) if needs_recall else []
        measured = text if on == 'text' else recall
        ranking = LayerRanking(
            conversion.ranking, conversion.init, tokens=tokens, on=on, unit=unit
        )
        everything = candidates.layers if unit == 'layers' else candidates.heads
        if not everything:
            raise ValueError(
                'The attention of all layers has a sliding window, so none of their '
                "heads can be kept; rank whole layers, unit='layers'."
            )
        if conversion.ranking == 'greedy':
            order: list[Unit] = []
            for _ in range(count or len(everything)):
                rest = [i for i in everything if i not in order]
                costs = candidates.costs(measured, order, rest)
                best = min(rest, key=costs.__getitem__)
                order.append(best)
                ranking.kl.append(costs[best])
            ranking.order = _written(order)
            return ranking
        costs = candidates.costs(measured, [], everything)
        scores: dict[Unit, float] = {}
        if conversion.ranking == 'recall':
            costs = costs if on == 'text' else candidates.costs(text, [], everything)
            scores = _recall_scores(costs, candidates.costs(recall, [], everything))
        elif conversion.ranking == 'gates':
            scores = candidates.learn_gates(measured, unit)
        by = scores or costs
        order = sorted(everything, key=lambda i: (by[i], costs[i]))
        ranking.order = _written(order)
        ranking.kl = [costs[i] for i in order]
        ranking.scores = [scores[i] for i in order if scores]
    return ranking


def _written(order: Sequence[Unit]) -> list[Any]:
    """As in a file, where heads are lists."""
    return [i if isinstance(i, int) else list(i) for i in order]


def _recall_scores(
    text: dict[Unit, float], recall: dict[Unit, float]
) -> dict[Unit, float]:
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
    """The conversion with the layers or heads of its ranking's file, and the ranking.

    Args:
        conversion: Unchanged, and without a ranking, if ``layers`` is not a file.
        teacher: Config of the teacher.

    Raises:
        FileNotFoundError, ValueError: See :meth:`LayerRanking.load`.
        ValueError: The ranking is of heads, and the mixer has none or ``layer_mixers``
            are given.
    """
    file = conversion.layers
    if not isinstance(file, str) or not file.endswith('.json'):
        return conversion, None
    ranking = LayerRanking.load(file)
    depth = conversion.fields.get('num_hidden_layers', teacher.num_hidden_layers)
    if ranking.unit == 'heads':
        count = count_layers_of(conversion.ratio, depth * kv_heads(teacher), 'head')
        heads = ranking.first(count)
        return convert_heads(conversion, heads, kv_heads(teacher)), ranking
    layers = ranking.first(count_layers_of(conversion.ratio, depth))
    return replace(conversion, layers=layers), ranking
