"""All layers of a model with the mixers that could replace their attention."""

from __future__ import annotations

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
from mmtransmamba.transfer.convert.calibrating import CALIBRATION_STEPS, calibrate
from mmtransmamba.transfer.convert.hybrid_config import hybrid_config
from mmtransmamba.transfer.convert.plan import LanguagePlan
from mmtransmamba.transfer.convert.probes import Probe, recall_probes
from mmtransmamba.transfer.convert.spec import Conversion

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
        self._training = self.model.training
        self._trained = [p for p in self.model.parameters() if p.requires_grad]
        self.model.eval().requires_grad_(False)
        return self

    def __exit__(self, *_: Any) -> None:
        for parameter in self._trained:
            parameter.requires_grad_(True)
        self.model.train(self._training)

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

    @contextmanager
    def converted(self, layers: Sequence[int]) -> Iterator[None]:
        """Context in which some layers have their mixer."""
        with self._replaced({i: self.mixers[i] for i in layers}):
            yield

    @torch.no_grad()
    def costs(
        self, probes: Sequence[Probe], chosen: Sequence[int], candidates: Sequence[int]
    ) -> dict[int, float]:
        """KL per token of converting each candidate together with the chosen layers."""
        totals = dict.fromkeys(candidates, 0.0)
        for probe in tqdm(probes, desc='ranking layers'):
            target = self._log_probs(probe)
            for candidate in candidates:
                with self.converted([*chosen, candidate]):
                    kl = kl_of_log_probs(self._log_probs(probe), target)
                totals[candidate] += float(kl.sum())
        tokens = sum(probe.tokens for probe in probes)
        return {i: total / tokens for i, total in totals.items()}

    @torch.no_grad()
    def compare(
        self, probes: Sequence[Probe], layers: Sequence[int]
    ) -> tuple[float, float]:
        """KL per token of converting some layers, and accuracy of the next token."""
        kl = right = 0.0
        for probe in probes:
            target = self._log_probs(probe)
            with self.converted(layers):
                own = self._log_probs(probe)
            kl += float(kl_of_log_probs(own, target).sum())
            words = probe.ids[:, probe.start + 1 :].to(own.device)
            right += float((own[:, :-1].argmax(-1) == words).sum())
        count = sum(probe.tokens for probe in probes)
        return kl / count, right / (count - sum(len(p.ids) for p in probes))

    def learn_gates(self, probes: Sequence[Probe]) -> dict[int, float]:
        r"""Learn which layers need their attention (FlashMorph, arXiv:2606.30562).

        Every layer's output is :math:`g_i` times that of the attention plus
        :math:`1 - g_i` times that of the mixer, all weights frozen. The gates, sigmoids
        of one number each, minimise the KL from the teacher plus :math:`\lambda` times
        the mean gate. :math:`\lambda`, ours, is the KL of converting all layers, so
        that keeping no attention and keeping all of it cost the same. Steps and rate
        are ours as well: 60 steps of Adam at 0.1, one probe each.

        Returns:
            The gates by layer; those close to 1 should stay attention.
        """
        attention = self.model.model.layers
        logits = {
            i: nn.Parameter(torch.full((), FIRST_GATE, device=self.model.device))
            for i in self.layers
        }
        targets = [self._log_probs(probe) for probe in probes]
        weight, _ = self.compare(probes, self.layers)
        optimizer = torch.optim.Adam(logits.values(), lr=GATE_RATE)
        both = {
            i: _Both(attention[i].self_attn, self.mixers[i], logit)
            for i, logit in logits.items()
        }
        for mixer in self.mixers.values():
            mixer.requires_grad_(False)
        with self._replaced(both), torch.enable_grad():
            for step in tqdm(range(GATE_STEPS), desc='learning gates'):
                probe, target = probes[step % len(probes)], targets[step % len(probes)]
                own = self._log_probs(probe)
                kl = kl_of_log_probs(own, target).sum() / probe.tokens
                gates = torch.stack([logit.sigmoid() for logit in logits.values()])
                optimizer.zero_grad()
                (kl + weight * gates.mean()).backward()
                optimizer.step()
        return {i: float(logit.detach().sigmoid()) for i, logit in logits.items()}

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


class _Both(nn.Module):
    """Attention and mixer of a layer side by side."""

    def __init__(self, attention: nn.Module, mixer: nn.Module, logit: Tensor) -> None:
        super().__init__()
        self.attention, self.mixer, self.logit = attention, mixer, logit

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        gate = self.logit.sigmoid()
        attended = self.attention(*args, **kwargs)[0]
        mixed = self.mixer(*args, **kwargs)[0]
        return gate * attended + (1 - gate) * mixed, None


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
