"""Terms for the distillation of language models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.folders.companions import Companions
from mmtransmamba.models.teachers import CachedTeacher
from mmtransmamba.models.teachers.token_cache import TopLogits
from mmtransmamba.models.token_losses import (
    mean_over_tokens,
    predicted,
    token_nll,
)
from mmtransmamba.models.trainable.step_average import KEPT, PREDICTED
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.alignment import Aligner, match_layers
from mmtransmamba.transfer.terms.base import Term
from mmtransmamba.transfer.terms.layers import WeightedLayersTerm
from mmtransmamba.transfer.watch import (
    LayerCall,
    heads_of,
    layers_of,
    output_projection,
)

MIXER_OUTPUTS = ('projected', 'heads')


@dataclass
class LanguagePair:
    """Student and teacher, causal language models of transformers.

    Attributes:
        student: A hybrid.
        teacher: Its frozen teacher.
        companions: Their tokenizers or processors.
    """

    student: nn.Module
    teacher: nn.Module
    companions: tuple[Companions | None, Companions | None] = (None, None)

    @property
    def mamba_layers(self) -> list[int]:
        """The student's layers with a Mamba mixer."""
        return getattr(self.student.config.get_text_config(), 'mamba_layers', [])

    @property
    def depths(self) -> tuple[int, int]:
        """Number of layers of student and teacher."""
        return len(layers_of(self.student)), len(layers_of(self.teacher))

    @property
    def widths(self) -> tuple[int, int]:
        """Hidden size of student and teacher."""
        student, teacher = (
            model.config.get_text_config().hidden_size
            for model in (self.student, self.teacher)
        )
        return student, teacher

    @property
    def vocabularies(self) -> tuple[int, int]:
        """Sizes of the vocabularies of student and teacher."""
        student = self.student.config.get_text_config().vocab_size
        if isinstance(self.teacher, CachedTeacher):
            return student, self.teacher.manifest.vocabulary
        return student, self.teacher.config.get_text_config().vocab_size


@dataclass
class LanguageBatch:
    """Outputs of the free-running models in one step.

    Attributes:
        logits, teacher_logits: ``[B, L, V]``; the teacher's None unless a term needs
            them, and both None for fused terms.
        labels: ``[B, L]``, negative where a token is not to be predicted.
        mask: Bool ``[B, L]``, False for padding.
        hidden, teacher_hidden: Output ``[B, L, C]`` of each layer that a term needs,
            by its number.
        last, teacher_last: Inputs of the heads, ``[B, L, C]``, and the heads; None
            unless a term is fused.
        teacher_top: Recorded outputs of the teacher, ``[B, L, k]``; None for a teacher
            that runs.
    """

    logits: Tensor | None
    teacher_logits: Tensor | None
    labels: Tensor
    mask: Tensor
    hidden: dict[int, Tensor]
    teacher_hidden: dict[int, Tensor]
    last: tuple[Tensor, nn.Linear] | None = None
    teacher_last: tuple[Tensor, nn.Linear] | None = None
    teacher_top: TopLogits | None = None

    @cached_property
    def _predicted(self) -> Tensor:
        return predicted(self.labels, self.mask)

    @cached_property
    def rows(self) -> Tensor:
        """The student's logits of the M tokens that are predicted, ``[M, V]``."""
        return self.logits[:, :-1][self._predicted]

    @cached_property
    def teacher_rows(self) -> Tensor:
        """The teacher's logits of these tokens, ``[M, V]``."""
        return self.teacher_logits[:, :-1][self._predicted]

    @cached_property
    def last_rows(self) -> Tensor:
        """The inputs of the student's head for these tokens, ``[M, C]``."""
        return self.last[0][:, :-1][self._predicted]

    @cached_property
    def teacher_last_rows(self) -> Tensor:
        """The inputs of the teacher's head for these tokens, ``[M, C]``."""
        return self.teacher_last[0][:, :-1][self._predicted]

    @cached_property
    def teacher_top_rows(self) -> TopLogits:
        """The recorded outputs for these tokens, ``[M, k]``."""
        return self.teacher_top[:, :-1][self._predicted]

    @cached_property
    def targets(self) -> Tensor:
        """These tokens, ``[M]``."""
        return self.labels[:, 1:][self._predicted]


@dataclass
class ForcedLayer:
    """One Mamba layer of the student with the teacher's layer.

    Attributes:
        layer: The student's decoder layer, with a Mamba mixer.
        call: Inputs and outputs of the teacher's layer.
        mask: Bool ``[B, L]``, False for padding.
        rows: A mixer's arguments about the rows: ``padding_mask`` with ``gaps``, and
            ``packing``, if present.
    """

    layer: nn.Module
    call: LayerCall
    mask: Tensor
    rows: dict[str, Any]

    @property
    def input(self) -> Tensor:
        """The teacher's hidden state, cast to the dtype of the student's."""
        return self.call.hidden.to(self.layer.input_layernorm.weight.dtype)


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that are not padding, of ``[B, L]`` or ``[B, L, C]``.

    The sum is one in float32, also under autocast: float16 holds none above 65,504.
    """
    weights = mask.float()
    with torch.autocast(values.device.type, enabled=False):
        total = torch.einsum('bl...,bl->...', values.float(), weights)
    return (total / weights.sum().clamp_min(1)).to(values.dtype)


class LanguageTerm(Term):
    """A term of a :class:`~mmtransmamba.transfer.LanguageDistiller`."""


class ModelTerm(LanguageTerm):
    """A term on the outputs of the free-running student.

    Attributes:
        needs_logits: Whether it reads ``logits``.
        needs_teacher_logits: Whether it reads ``teacher_logits``.
        only_outputs: Whether it reads nothing else from the models, so that a recorded
            teacher can replace one that runs.
        fused: Whether it reads ``last`` and ``teacher_last`` instead of logits.
        layers, teacher_layers: Layers whose ``hidden``, ``teacher_hidden`` it reads.
    """

    unit = PREDICTED
    needs_logits = False
    needs_teacher_logits = False
    only_outputs = False
    fused = False
    layers: list[int] = []
    teacher_layers: list[int] = []


@MODELS.register_module()
class NextTokenTerm(ModelTerm):
    """Cross-entropy of the next token: the task's own loss, mean over the tokens."""

    needs_logits = True
    only_outputs = True

    def forward(self, batch: LanguageBatch) -> dict[str, Tensor]:
        loss = mean_over_tokens(token_nll, batch.rows, batch.targets)
        return {'': self.weight * loss}


@MODELS.register_module()
class HiddenStatesTerm(ModelTerm, WeightedLayersTerm):
    r"""Output of each layer against the teacher's (TransMamba Eq. 4 to 6).

    :math:`\sum_i w_i (1 - \cos(F_{T,i}, F_{S,i}))`, the mean over the tokens, with
    the free-running student's layers. If the widths differ, a learned aligner per
    layer maps the student's output to the teacher's width.

    Args:
        weight: Factor of the term.
        loss: Config of a distance in :mod:`mmtransmamba.transfer.losses`.
        weighting: Config of a weighting in :mod:`mmtransmamba.transfer.weighting`.
        teacher_layer: Teacher layer for each student layer, see
            :func:`mmtransmamba.transfer.alignment.match_layers`.
    """

    unit = KEPT

    def __init__(
        self,
        weight: float = 1.0,
        loss: dict | None = None,
        weighting: dict | None = None,
        teacher_layer: Any = 'auto',
    ) -> None:
        super().__init__(weight, loss, weighting)
        self.teacher_layer = teacher_layer

    def bind(self, pair: LanguagePair) -> None:
        depth, teacher_depth = pair.depths
        width, teacher_width = pair.widths
        self.layers = list(range(depth))
        self.teacher_layers = match_layers(depth, teacher_depth, self.teacher_layer)
        self.aligners = nn.ModuleList(
            nn.Identity() if width == teacher_width else Aligner(width, teacher_width)
            for _ in self.layers
        )
        self.weighting.bind(depth, teacher_width)

    def forward(self, batch: LanguageBatch) -> dict[str, Tensor]:
        distances, means, teacher_means = [], [], []
        for aligner, index, target_index in zip(
            self.aligners, self.layers, self.teacher_layers, strict=True
        ):
            student = aligner(batch.hidden[index])
            teacher = batch.teacher_hidden[target_index]
            distances.append(token_mean(self.distance(student, teacher), batch.mask))
            means.append(token_mean(student.detach().float(), batch.mask))
            teacher_means.append(token_mean(teacher.float(), batch.mask))
        return self._weigh(
            torch.stack(distances)[None],
            torch.stack(means)[None],
            torch.stack(teacher_means)[None],
        )


class ForcedTerm(LanguageTerm):
    """A term on single layers of the student, fed with the teacher's inputs.

    The layers' errors do not accumulate, and each layer can be trained separately.

    Attributes:
        calls_parts: Whether the term calls modules of a layer instead of the layer.
    """

    unit = KEPT
    calls_parts = False

    def bind(self, pair: LanguagePair) -> None:
        name = type(self).__name__
        if not pair.mamba_layers:
            raise ValueError(f'{name}: the student has no Mamba layer.')
        for what, (student, teacher) in (
            ('layers', pair.depths),
            ('channels', pair.widths),
        ):
            if student != teacher:
                raise ValueError(
                    f'{name}: the student has {student} {what}, the teacher {teacher}; '
                    "a student's layer can take the place of the teacher's only if "
                    'they are alike. HiddenStatesTerm compares models that differ.'
                )

    def forward(self, batch: ForcedLayer) -> dict[str, Tensor]:
        """Loss of one layer times ``weight``, under ``''``."""
        raise NotImplementedError


@MODELS.register_module()
class MixerOutputTerm(ForcedTerm):
    r"""Output of a mixer against the attention's (mmMamba Eq. 3 and 4).

    :math:`\sum_i \mathrm{MSE}(\mathrm{Attn}(X_i), \mathrm{Mamba}(X_i))` over the
    Mamba layers, where :math:`X_i` is the teacher's hidden state before layer i,
    normalised by the layer's own norm; the mean over channels and tokens without
    padding. The published code has a factor of 1000 and compares before the output
    projection: ``weight=1000, at='heads'``.

    Args:
        weight: Factor of the term.
        at: ``'projected'``: after the output projection, where it is added to the
            residual stream; ``'heads'``: before it, so the projection has no gradient.
    """

    calls_parts = True

    def __init__(self, weight: float = 1.0, at: str = 'projected') -> None:
        super().__init__(weight)
        if at not in MIXER_OUTPUTS:
            raise ValueError(
                f'MixerOutputTerm: at={at!r} must be one of {", ".join(MIXER_OUTPUTS)}.'
            )
        self.at = at

    def bind(self, pair: LanguagePair) -> None:
        super().bind(pair)
        if self.at != 'heads':
            return
        layers, teacher_layers = layers_of(pair.student), layers_of(pair.teacher)
        for i in pair.mamba_layers:
            student, teacher = (
                output_projection(stack[i].self_attn).in_features
                for stack in (layers, teacher_layers)
            )
            if student != teacher:
                raise ValueError(
                    f"MixerOutputTerm: at='heads' compares what goes into the output "
                    f'projections; in layer {i} that is {student} channels wide in the '
                    f"student and {teacher} in the teacher. Use at='projected'."
                )

    def forward(self, batch: ForcedLayer) -> dict[str, Tensor]:
        mixer = batch.layer.self_attn
        normed = batch.layer.input_layernorm(batch.input)
        if self.at == 'heads':
            student, target = heads_of(mixer, normed, batch.rows), batch.call.heads
        else:
            student, target = mixer(normed, **batch.rows)[0], batch.call.mixed
        error = (student.float() - target.float()).square().mean(-1)
        return {'': self.weight * token_mean(error, batch.mask)}


@MODELS.register_module()
class ForcedLayerTerm(ForcedTerm):
    r"""Output of a whole layer against the teacher's (MaTVLM Eq. 9).

    :math:`\sum_i \| T_i(h_{i-1}) - S_i(h_{i-1}) \|_2` over the Mamba layers, both fed
    with the teacher's hidden state :math:`h_{i-1}`: the norm over the channels, the
    mean over tokens without padding, so that it does not grow with batch and length.
    """

    def forward(self, batch: ForcedLayer) -> dict[str, Tensor]:
        output = batch.layer(batch.input, **batch.rows)
        output = output[0] if isinstance(output, tuple) else output
        difference = output.float() - batch.call.output.float()
        error = torch.linalg.vector_norm(difference, dim=-1)
        return {'': self.weight * token_mean(error, batch.mask)}
