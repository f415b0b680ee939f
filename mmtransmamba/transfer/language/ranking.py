"""Which layers can become Mamba at the least cost, measured on text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from mmtransmamba.models.divergence import kl_of_log_probs
from mmtransmamba.models.folders.lm import load_lm, read_config
from mmtransmamba.models.language.layer_choice import count_layers_of
from mmtransmamba.transfer.language.calibration import read_calibration
from mmtransmamba.transfer.language.plan import plan_conversion
from mmtransmamba.transfer.language.student import hybrid_config
from mmtransmamba.utils.choices import RANKINGS

_WIDTHS = (
    'hidden_size intermediate_size num_attention_heads num_key_value_heads head_dim '
    'vocab_size'
).split()


@dataclass
class LayerRanking:
    """Layers in the order in which they should be converted.

    Attributes:
        method: How they were ranked, see :func:`rank_layers`.
        init: Initialisation of the mixers.
        order: Layers, the one that costs least first.
        kl: Per-token KL divergence from the teacher in nats: with ``'single'`` of that
            layer alone, with ``'greedy'`` of it and all those before it.
        tokens: Number of tokens it was measured on.
    """

    method: str
    init: str
    order: list[int] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    tokens: int = 0

    def save(self, path: str | Path) -> None:
        """Write the ranking as JSON."""
        Path(path).write_text(json.dumps(self.__dict__, indent=1) + '\n')

    def note_in(self, config: Any) -> None:
        """Have the config of the hybrid tell how its layers were chosen.

        Args:
            config: Of a language model, or of a vision-language model around it.
        """
        config.get_text_config().layer_ranking = asdict(self)

    def __str__(self) -> str:
        meaning = 'alone' if self.method == 'single' else 'with those above'
        lines = [
            f'Layers by the KL per token of converting them ({meaning}; '
            f'init={self.init}, {self.tokens:,} tokens):',
            'rank  layer  KL (nats)',
        ]
        for rank, (layer, kl) in enumerate(zip(self.order, self.kl, strict=True), 1):
            lines.append(f'{rank:4}  {layer:5}  {kl:9.4f}')
        return '\n'.join(lines)


@torch.no_grad()
def rank_layers(
    teacher: nn.Module | str | Path,
    batches: Sequence[Tensor],
    init: str = 'mimic',
    method: str = 'single',
    count: int | None = None,
    seed: int = 0,
    mamba_checkpoint: str | Path | None = None,
    **fields: Any,
) -> LayerRanking:
    """Rank a model's layers by what converting them costs, before any training.

    Args:
        teacher: A transformers causal language model, or its folder. A model is
            changed while this runs, and left as it was.
        batches: Token ids ``[B, L]`` of calibration text, without padding.
        init, seed, mamba_checkpoint, fields: See
            :func:`~mmtransmamba.transfer.language.convert_lm`. If the student is
            shallower, only its layers are ranked, within the whole teacher.
        method: ``'single'``: each layer is converted alone, which takes one pass per
            layer; ``'greedy'``: the cheapest layer is converted, then the one that is
            cheapest together with it, and so on.
        count: Layers to rank with ``'greedy'``; all by default.

    Raises:
        ValueError: Unknown method, no calibration text, or a student of another width.
    """
    if method not in RANKINGS:
        raise ValueError(f'method={method!r} must be one of {", ".join(RANKINGS)}.')
    if not batches:
        raise ValueError('Ranking layers needs calibration text; there is none.')
    config = read_config(teacher)
    # Also refuses families that cannot be converted, before the model is loaded.
    hybrid_config(config, 'early', 1.0, init, **fields)
    _check_width(config, fields)
    _check_ids(batches, config.vocab_size)
    if not isinstance(teacher, nn.Module):
        teacher = load_lm(teacher)
    plan = plan_conversion(
        teacher, 'early', 1.0, init, seed, mamba_checkpoint, **fields
    )
    device = next(teacher.parameters()).device
    everything = plan.config.mamba_layers
    mixers = {i: plan.mixer(i).to(device) for i in everything}
    ranking = LayerRanking(method, init, tokens=sum(b.numel() for b in batches))
    training = teacher.training
    teacher.eval()
    try:
        if method == 'single':
            costs = _costs(teacher, mixers, batches, [], everything)
            ranking.order = sorted(everything, key=costs.__getitem__)
            ranking.kl = [costs[i] for i in ranking.order]
        else:
            for _ in range(count or len(everything)):
                rest = [i for i in everything if i not in ranking.order]
                costs = _costs(teacher, mixers, batches, ranking.order, rest)
                best = min(rest, key=costs.__getitem__)
                ranking.order.append(best)
                ranking.kl.append(costs[best])
    finally:
        teacher.train(training)
    return ranking


def _check_ids(batches: Sequence[Tensor], vocab_size: int) -> None:
    lowest = min(int(batch.min()) for batch in batches)
    highest = max(int(batch.max()) for batch in batches)
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(
            f'The calibration text has the token id {wrong}; the teacher has the ids 0 '
            f'to {vocab_size - 1}.'
        )


def automatic_layers(
    teacher: nn.Module | str | Path,
    calibration: Sequence[Tensor] | str | Path,
    ratio: float = 1.0,
    init: str = 'mimic',
    method: str = 'single',
    seed: int = 0,
    mamba_checkpoint: str | Path | None = None,
    **fields: Any,
) -> tuple[list[int], LayerRanking]:
    """The share of layers whose conversion costs least, and what tells so.

    Args:
        teacher: A transformers causal language model, or its folder.
        calibration: Batches of token ids ``[B, L]``, or a file for
            :func:`~mmtransmamba.transfer.language.read_calibration`.
        ratio: Share of the student's layers.
        init, method, seed, mamba_checkpoint, fields: See :func:`rank_layers`.
    """
    depth = fields.get('num_hidden_layers', read_config(teacher).num_hidden_layers)
    count = count_layers_of(ratio, depth)
    if isinstance(calibration, str | Path):
        folder = teacher.name_or_path if isinstance(teacher, nn.Module) else teacher
        calibration = read_calibration(calibration, folder)
    ranking = rank_layers(
        teacher, calibration, init, method, count, seed, mamba_checkpoint, **fields
    )
    return sorted(ranking.order[:count]), ranking


def _check_width(config: Any, fields: dict[str, Any]) -> None:
    for name in _WIDTHS:
        have = getattr(config, name, None)
        if fields.get(name, have) != have:
            raise ValueError(
                f'{name}={fields[name]} is not the {have} of the teacher, in which '
                'layers are ranked: name the layers of a narrower student yourself.'
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
