"""Which layers can become Mamba at the least cost, measured on text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from mmtransmamba.transfer.language.convert import convert_lm

METHODS = ('single', 'greedy')


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
    teacher: nn.Module,
    batches: Sequence[Tensor],
    init: str = 'mimic',
    method: str = 'single',
    count: int | None = None,
    seed: int = 0,
    **fields,
) -> LayerRanking:
    """Rank a model's layers by what converting them costs, before any training.

    Args:
        teacher: A transformers causal language model. It is changed while this runs,
            and left as it was.
        batches: Token ids ``[B, L]`` of calibration text, without padding.
        init, seed, fields: See :func:`convert_lm`.
        method: ``'single'``: each layer is converted alone, which takes one pass per
            layer; ``'greedy'``: the cheapest layer is converted, then the one that is
            cheapest together with it, and so on.
        count: Layers to rank with ``'greedy'``; all by default.

    Raises:
        ValueError: Unknown method, or no calibration text.
    """
    if method not in METHODS:
        raise ValueError(f'method={method!r} must be one of {", ".join(METHODS)}.')
    if not batches:
        raise ValueError('Ranking layers needs calibration text; there is none.')
    training = teacher.training
    teacher.eval()
    mixers = _mixers(teacher, init, seed, fields)
    layers = teacher.model.layers
    attention = [layer.self_attn for layer in layers]
    targets = [_log_probs(teacher, batch) for batch in batches]
    ranking = LayerRanking(method, init, tokens=sum(b.numel() for b in batches))

    def cost(converted: Iterable[int]) -> float:
        for i in converted:
            layers[i].self_attn = mixers[i]
        try:
            total = sum(
                float(_kl(target, _log_probs(teacher, batch)))
                for target, batch in zip(targets, batches, strict=True)
            )
        finally:
            for i in converted:
                layers[i].self_attn = attention[i]
        return total / ranking.tokens

    everything = range(len(layers))
    if method == 'single':
        costs = [cost([i]) for i in tqdm(everything, desc='ranking layers')]
        ranking.order = sorted(everything, key=costs.__getitem__)
        ranking.kl = [costs[i] for i in ranking.order]
    else:
        for _ in tqdm(range(count or len(layers)), desc='ranking layers'):
            rest = [i for i in everything if i not in ranking.order]
            costs = {i: cost([*ranking.order, i]) for i in rest}
            best = min(rest, key=costs.__getitem__)
            ranking.order.append(best)
            ranking.kl.append(costs[best])
    teacher.train(training)
    return ranking


def _mixers(teacher: nn.Module, init: str, seed: int, fields: dict) -> list[nn.Module]:
    """A mixer for every layer, as :func:`convert_lm` would begin it."""
    hybrid, _ = convert_lm(teacher, 'early', 1.0, init, seed, **fields)
    device = next(teacher.parameters()).device
    return [layer.self_attn.to(device) for layer in hybrid.model.layers]


def _log_probs(model: nn.Module, batch: Tensor) -> Tensor:
    device = next(model.parameters()).device
    logits = model(batch.to(device), use_cache=False).logits
    return F.log_softmax(logits.float(), dim=-1)


def _kl(target: Tensor, log_probs: Tensor) -> Tensor:
    """Sum over the tokens of the KL divergence of two log-distributions."""
    return F.kl_div(log_probs, target, reduction='sum', log_target=True)
