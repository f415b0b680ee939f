"""Ranking of layers by the cost of converting them to Mamba, measured on text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from mmtransmamba.models.divergence import kl_of_log_probs
from mmtransmamba.models.folders.pretrained import Pretrained
from mmtransmamba.models.language.layer_choice import count_layers_of
from mmtransmamba.transfer.convert.hybrid_config import hybrid_config
from mmtransmamba.transfer.convert.layer_ranking import LayerRanking
from mmtransmamba.transfer.convert.plan import LanguagePlan
from mmtransmamba.transfer.convert.spec import Conversion

_WIDTHS = (
    'hidden_size intermediate_size num_attention_heads num_key_value_heads head_dim '
    'vocab_size'
).split()


@torch.no_grad()
def rank_layers(
    teacher: Pretrained | nn.Module | str | Path,
    batches: Sequence[Tensor],
    conversion: Conversion | None = None,
    count: int | None = None,
) -> LayerRanking:
    """Rank a model's layers by the cost of converting them, before any training.

    Args:
        teacher: A transformers causal language model, or its folder. A model is
            changed during the ranking, and restored afterwards.
        batches: Token ids ``[B, L]`` of calibration text, without padding.
        conversion: How each layer would be converted; its ``layers`` and ``ratio`` are
            ignored. If the student is shallower, only its layers are ranked, within
            the whole teacher. Its ``ranking`` is the method. With ``'single'``, each
            layer is converted alone, which takes one pass per layer. With ``'greedy'``,
            the cheapest layer is converted, then the one that is cheapest together
            with it, and so on.
        count: Number of layers to rank with ``'greedy'``; all by default.

    Raises:
        ValueError: No calibration text, a family that cannot be converted, or a student
            of another width.
    """
    if not batches:
        raise ValueError('Ranking layers needs calibration text; there is none.')
    if not isinstance(teacher, Pretrained):
        teacher = Pretrained(teacher)
    conversion = replace(conversion or Conversion(), layers='early', ratio=1.0)
    # Families that cannot be converted are refused here, before the model is loaded.
    hybrid_config(teacher.config, conversion)
    check_width(teacher.config, conversion.fields)
    check_ids(batches, teacher.config.vocab_size)
    model = teacher.load()
    plan = LanguagePlan.of(teacher, conversion)
    device = next(model.parameters()).device
    everything = plan.config.mamba_layers
    mixers = {i: plan.mixer(i).to(device) for i in everything}
    ranking = LayerRanking(
        conversion.ranking, conversion.init, tokens=sum(b.numel() for b in batches)
    )
    training = model.training
    model.eval()
    try:
        if conversion.ranking == 'single':
            costs = _costs(model, mixers, batches, [], everything)
            ranking.order = sorted(everything, key=costs.__getitem__)
            ranking.kl = [costs[i] for i in ranking.order]
        else:
            for _ in range(count or len(everything)):
                rest = [i for i in everything if i not in ranking.order]
                costs = _costs(model, mixers, batches, ranking.order, rest)
                best = min(rest, key=costs.__getitem__)
                ranking.order.append(best)
                ranking.kl.append(costs[best])
    finally:
        model.train(training)
    return ranking


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
    return sorted(ranking.order[:count]), ranking


def check_ids(batches: Sequence[Tensor], vocab_size: int) -> None:
    """Refuse ids of calibration text that are not in a teacher's vocabulary.

    Raises:
        ValueError: There is such an id.
    """
    lowest = min(int(batch.min()) for batch in batches)
    highest = max(int(batch.max()) for batch in batches)
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(
            f'The calibration text has the token id {wrong}; the teacher has the ids 0 '
            f'to {vocab_size - 1}.'
        )


def check_width(config: Any, fields: Mapping[str, Any]) -> None:
    """Refuse config fields that make a student narrower than its teacher.

    Raises:
        ValueError: There is such a field.
    """
    for name in _WIDTHS:
        have = getattr(config, name, None)
        if fields.get(name, have) != have:
            raise ValueError(
                f'{name}={fields[name]} is not the {have} of the teacher, in which '
                'layers are ranked and calibrated: name the layers of a narrower '
                'student yourself.'
            )


def _costs(
    teacher: nn.Module,
    mixers: dict[int, nn.Module],
    batches: Sequence[Tensor],
    chosen: list[int],
    candidates: list[int],
) -> dict[int, float]:
    """KL per token of converting each candidate together with the chosen layers."""
    layers = teacher.model.layers
    totals = dict.fromkeys(candidates, 0.0)
    for batch in tqdm(batches, desc='ranking layers'):
        target = _log_probs(teacher, batch)
        for candidate in candidates:
            converted = [*chosen, candidate]
            attention = {i: layers[i].self_attn for i in converted}
            try:
                for i in converted:
                    layers[i].self_attn = mixers[i]
                kl = kl_of_log_probs(_log_probs(teacher, batch), target)
                totals[candidate] += float(kl.sum())
            finally:
                for i in converted:
                    layers[i].self_attn = attention[i]
    tokens = sum(batch.numel() for batch in batches)
    return {i: total / tokens for i, total in totals.items()}


def _log_probs(model: nn.Module, batch: Tensor) -> Tensor:
    device = next(model.parameters()).device
    logits = model(batch.to(device), use_cache=False).logits
    return F.log_softmax(logits.float(), dim=-1)
