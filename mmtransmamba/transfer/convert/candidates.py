"""All layers of a model with the mixers that could replace their attention."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from mmtransmamba.models.divergence import kl_of_log_probs
from mmtransmamba.models.folders.pretrained import Pretrained
from mmtransmamba.models.language.config import SLIDING
from mmtransmamba.transfer.convert.calibrating import CALIBRATION_STEPS, calibrate
from mmtransmamba.transfer.convert.hybrid_config import attention_kinds, hybrid_config
from mmtransmamba.transfer.convert.plan import LanguagePlan
from mmtransmamba.transfer.convert.probes import Probe, recall_probes
from mmtransmamba.transfer.convert.side_by_side import Both, SharedHeads
from mmtransmamba.transfer.convert.spec import Conversion
from mmtransmamba.utils.evaluation_mode import evaluating

Unit = int | tuple[int, int]
"""A layer, or a layer and one of its key-value heads."""
_WIDTHS = (
    'hidden_size intermediate_size num_attention_heads num_key_value_heads head_dim '
    'vocab_size'
).split()
GATE_STEPS = 60
GATE_RATE = 0.1
FIRST_GATE = 2.0
"""Logit of a gate at the start: 0.88 of the attention."""


class Candidates:
    """A teacher in memory and one mixer for each layer; a context.

    Within the context the model is in evaluation mode and frozen; it is restored at
    the end.

    Args:
        teacher: A transformers causal language model, or its folder.
        conversion: How each layer would be converted; ``layers`` and ``ratio`` are
            ignored.

    Attributes:
        model: The teacher.
        mixers: Mixers by layer.
        layers: Layers that can be converted.

    Raises:
        ValueError: A family that cannot be converted, or a student of another width.
    """

    def __init__(
        self, teacher: Pretrained | nn.Module | str | Path, conversion: Conversion
    ) -> None:
        if not isinstance(teacher, Pretrained):
            teacher = Pretrained(teacher)
        conversion = replace(conversion, layers='early', ratio=1.0)
        # Families that cannot be converted are refused here, before the model is
        # loaded.
        hybrid_config(teacher.config, conversion)
        check_width(teacher.config, conversion.fields)
        self.config = teacher.config
        self.model = teacher.load()
        plan = LanguagePlan.of(teacher, conversion)
        device = next(self.model.parameters()).device
        self.layers = plan.config.mamba_layers
        self.mixers = {i: plan.mixer(i).to(device) for i in self.layers}

    def __enter__(self) -> Candidates:
        self._mode = evaluating(self.model)
        self._mode.__enter__()
        self._trained = [p for p in self.model.parameters() if p.requires_grad]
        self.model.requires_grad_(False)
        return self

    def __exit__(self, *error: Any) -> None:
        for parameter in self._trained:
            parameter.requires_grad_(True)
        self._mode.__exit__(*error)

    @property
    def vocab_size(self) -> int:
        """Size of the teacher's vocabulary."""
        return self.config.vocab_size

    def recall(self, tokens: int, seed: int) -> list[Probe]:
        """Synthetic recall for this model."""
        context = self.config.max_position_embeddings
        return recall_probes(self.vocab_size, context, tokens, seed=seed)

    def fit(
        self, batches: Sequence[Tensor], steps: int | None = None, seed: int = 0
    ) -> None:
        """Calibrate all mixers, as ``init='calibrate'`` does for those it converts."""
        steps = CALIBRATION_STEPS if steps is None else steps
        calibrate(self.model, self.mixers, batches, steps, seed)

    @property
    def heads(self) -> list[tuple[int, int]]:
        """The layer and the number of every key-value head that can be converted.

        Those of layers with a sliding window are left out: kept heads have none.
        """
        kinds = attention_kinds(self.config)
        whole = [i for i in self.layers if kinds[i] != SLIDING]
        return [(i, head) for i in whole for head in range(self._groups)]

    @property
    def _groups(self) -> int:
        return kv_heads(self.config)

    @contextmanager
    def converted(self, units: Sequence[Unit]) -> Iterator[None]:
        """Context in which some layers, or some heads of layers, have their mixer."""
        heads: dict[int, set[int]] = defaultdict(set)
        for unit in units:
            layer = unit if isinstance(unit, int) else unit[0]
            every = range(self._groups)
            heads[layer].update(every if isinstance(unit, int) else [unit[1]])
        with self._replaced({i: self._mixed(i, own) for i, own in heads.items()}):
            yield

    def _mixed(self, layer: int, heads: set[int]) -> nn.Module:
        """A layer's mixer, beside the attention if that has other heads."""
        if len(heads) == self._groups:
            return self.mixers[layer]
        logits = torch.full((self._groups,), math.inf, device=self.model.device)
        logits[sorted(heads)] = -math.inf
        attention = self.model.model.layers[layer].self_attn
        return SharedHeads(attention, self.mixers[layer], logits)

    @torch.no_grad()
    def costs(
        self,
        probes: Sequence[Probe],
        chosen: Sequence[Unit],
        candidates: Sequence[Unit],
    ) -> dict[Unit, float]:
        """KL per token of converting each candidate together with the chosen units."""
        totals = dict.fromkeys(candidates, 0.0)
        for probe in tqdm(probes, desc='ranking'):
            target = self._log_probs(probe)
            for candidate in candidates:
                with self.converted([*chosen, candidate]):
                    kl = kl_of_log_probs(self._log_probs(probe), target)
                totals[candidate] += float(kl.sum())
        tokens = sum(probe.tokens for probe in probes)
        return {i: total / tokens for i, total in totals.items()}

    @torch.no_grad()
    def compare(
        self, probes: Sequence[Probe], units: Sequence[Unit]
    ) -> tuple[float, float]:
        """KL per token of converting some layers or heads, and accuracy afterwards."""
        kl = right = 0.0
        for probe in probes:
            target = self._log_probs(probe)
            with self.converted(units):
                own = self._log_probs(probe)
            kl += float(kl_of_log_probs(own, target).sum())
            words = probe.ids[:, probe.start + 1 :].to(own.device)
            right += float((own[:, :-1].argmax(-1) == words).sum())
        count = sum(probe.tokens for probe in probes)
        return kl / count, right / (count - sum(len(p.ids) for p in probes))

    def learn_gates(
        self, probes: Sequence[Probe], unit: str = 'layers'
    ) -> dict[Unit, float]:
        r"""Learn which layers need their attention (FlashMorph, arXiv:2606.30562).

        Every layer's output is :math:`g_i` times that of the attention plus
        :math:`1 - g_i` times that of the mixer, all weights frozen. The gates, sigmoids
        of one number each, minimise the KL from the teacher plus :math:`\lambda` times
        the mean gate. :math:`\lambda`, ours, is the KL of converting all layers, so
        that keeping no attention and keeping all of it cost the same. Steps and rate
        are ours as well: 60 steps of Adam at 0.1, one probe each.

        Args:
            probes: What is measured.
            unit: ``'layers'``, or ``'heads'`` for a gate per key-value head.

        Returns:
            The gates by layer or head; those close to 1 should stay attention.
        """
        attention = self.model.model.layers
        shape = () if unit == 'layers' else (self._groups,)
        logits = {
            i: nn.Parameter(torch.full(shape, FIRST_GATE, device=self.model.device))
            for i in self.layers
        }
        targets = [self._log_probs(probe) for probe in probes]
        weight, _ = self.compare(probes, self.layers)
        optimizer = torch.optim.Adam(logits.values(), lr=GATE_RATE)
        beside = Both if unit == 'layers' else SharedHeads
        both = {
            i: beside(attention[i].self_attn, self.mixers[i], logit)
            for i, logit in logits.items()
        }
        for mixer in self.mixers.values():
            mixer.requires_grad_(False)
        with self._replaced(both), torch.enable_grad():
            for step in tqdm(range(GATE_STEPS), desc='learning gates'):
                probe, target = probes[step % len(probes)], targets[step % len(probes)]
                own = self._log_probs(probe)
                kl = kl_of_log_probs(own, target).sum() / probe.tokens
                gates = torch.cat([x.sigmoid().flatten() for x in logits.values()])
                optimizer.zero_grad()
                (kl + weight * gates.mean()).backward()
                optimizer.step()
        gates = {i: logit.detach().sigmoid() for i, logit in logits.items()}
        if unit == 'layers':
            return {i: float(gate) for i, gate in gates.items()}
        return {(i, head): float(gates[i][head]) for i, head in self.heads}

    @contextmanager
    def _replaced(self, modules: Mapping[int, nn.Module]) -> Iterator[None]:
        layers = self.model.model.layers
        attention = {i: layers[i].self_attn for i in modules}
        try:
            for i, module in modules.items():
                layers[i].self_attn = module
            yield
        finally:
            for i, module in attention.items():
                layers[i].self_attn = module

    def _log_probs(self, probe: Probe) -> Tensor:
        ids = probe.ids.to(next(self.model.parameters()).device)
        logits = self.model(ids, use_cache=False).logits[:, probe.start :]
        return F.log_softmax(logits.float(), dim=-1)


def kv_heads(config: Any) -> int:
    """Number of key-value heads of a decoder's attention."""
    groups = getattr(config, 'num_key_value_heads', None)
    return groups or config.num_attention_heads


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
