"""The distillation of language models: TransMamba's, MaTVLM's and mmMamba's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmtransmamba.compat import is_fully_sharded
from mmtransmamba.models.folders.companions import Companions
from mmtransmamba.models.generation import repair_generation_config
from mmtransmamba.models.language.packing import Packing, find_packing, has_jumps
from mmtransmamba.models.language.padding import has_gaps
from mmtransmamba.models.teachers import CachedTeacher
from mmtransmamba.models.token_losses import score_tokens
from mmtransmamba.models.trainable.adapters import add_adapters
from mmtransmamba.models.trainable.answering import answer, build_head
from mmtransmamba.models.trainable.base import (
    TransformersModel,
    count_tokens,
    exempt_from_decay,
)
from mmtransmamba.models.trainable.partial_backward import PartialBackward
from mmtransmamba.models.trainable.stages import (
    check_history,
    freeze_all_but,
    parameters_for_images,
    table_of_trained,
    touch_image_parameters,
    trained_in,
)
from mmtransmamba.models.trainable.step_average import (
    BATCHES,
    Share,
    times,
    zero_of,
)
from mmtransmamba.models.trainable.token_check import TokenCheck
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.distillers.base import Distiller, scaled_losses
from mmtransmamba.transfer.heads import HeadInputs, head_of
from mmtransmamba.transfer.teacher_device import moved
from mmtransmamba.transfer.terms.base import Term
from mmtransmamba.transfer.terms.language import (
    ForcedLayer,
    ForcedTerm,
    LanguageBatch,
    LanguagePair,
    ModelTerm,
)
from mmtransmamba.transfer.watch import LayerCall, layers_of, watch


@MODELS.register_module()
class LanguageDistiller(Distiller):
    r"""Trains a hybrid language model with its Transformer as teacher.

    The loss is the sum of named terms (:mod:`mmtransmamba.transfer.terms.language`).
    A config enables each of them, and None disables it, so a child config can change
    one term of its base:

    * mmMamba, stages 1 and 2: ``MixerOutputTerm``; stage 3: ``TokenKLTerm``;
    * MaTVLM: ``TokenKLTerm`` and ``ForcedLayerTerm``;
    * TransMamba: ``HiddenStatesTerm`` with ``AdaptiveWeighting`` and ``NextTokenTerm``.

    Terms that feed a layer with the teacher's input are computed while the teacher
    runs. In training, each layer has a separate backward pass, so that the activations
    of only one layer are stored; the gradients are those of the sum. With several
    processes this requires the wrapper
    :class:`~mmtransmamba.engine.partwise_data_parallel.PartwiseDataParallel`
    (``model_wrapper_cfg``); DDP requires a single backward pass, for which the
    activations of all layers are stored. So does FSDP
    (:class:`~mmtransmamba.engine.sharding.FullyShardedModel`).

    In the state dict, the student's tensors have the same names as in the transformers
    model, and parameters of terms start with ``distiller.``; the teacher is not
    included.

    Args:
        student: Hybrid: a transformers model, a :class:`CausalLM`, or its config.
        teacher: Teacher, in the same form.
        terms: Terms by name; None omits one.
        stage: Name in :data:`~mmtransmamba.models.trainable.stages.STAGES`. Parameters
            outside the stage are frozen, and a student that does not meet its
            requirements is refused. Any other name is a stage of your own, with
            ``trains`` and ``requires``. Without a stage, the parameters in ``trains``
            are trained, from any student.
        trains: Groups of parameters
            (:data:`~mmtransmamba.models.trainable.stages.GROUPS`) instead of the
            stage's own; without either, what the student has not frozen itself.
        adapters: Train low-rank adapters of the linear layers in these groups, and
            nothing else: a dict with ``rank`` and optionally ``alpha`` and
            ``dropout``, see
            :func:`~mmtransmamba.models.trainable.adapters.add_adapters`. They are
            merged into the student that is saved.
        requires: Patterns for the student's last step instead of the stage's own, such
            as ``'init:mimic'`` for a stage 3 without stages 1 and 2.
        compare: Also measure the divergence from the teacher in validation and test.
        head: Config of a head of vision-language models, which answers batches with
            ``answers``; by default the head of the student.
        average: ``'tokens'``: every term is the mean over all tokens of an optimizer
            step, in all batches that it accumulates and in all processes;
            ``'batches'``: the mean of the batches' means. See
            :class:`~mmtransmamba.models.trainable.step_average.StepAverage`.
        teacher_device: Where the teacher runs, if not on the student's device: one
            for all processes, such as ``'cuda:1'``, or a list with one for each
            process of a machine.
        data_preprocessor: As in mmengine's ``BaseModel``.

    Raises:
        StageError: The student does not fit the stage.
        ValueError: There is no term, or one that does not support this pair.
    """

    def __init__(
        self,
        student: dict | nn.Module,
        teacher: dict | nn.Module,
        terms: dict[str, dict | None],
        stage: str | None = None,
        trains: Sequence[str] | None = None,
        adapters: dict[str, Any] | None = None,
        requires: str | Sequence[str] | None = None,
        compare: bool = True,
        head: dict | nn.Module | None = None,
        average: str = 'tokens',
        teacher_device: str | Sequence[str] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        super().__init__(data_preprocessor)
        self._average_over(average, 'tokens', BATCHES)
        self._check_tokens = TokenCheck()
        self._check_teacher_tokens = TokenCheck()
        student, self.companions, own_head = _unpack(student)
        teacher, teacher_companions, _ = _unpack(teacher)
        self._hold(student, teacher.requires_grad_(False).eval(), teacher_device)
        # It is saved at the end of the training.
        repair_generation_config(self.student)
        self.head = own_head if head is None else build_head(head)
        if stage is not None:
            check_history(self.student, stage, requires)
        self.stage = stage
        self.compare = compare
        built = self._build_terms(terms, 'train the student as a CausalLM')
        pair = LanguagePair(
            self.student, self.teacher, (self.companions, teacher_companions)
        )
        if self._cached:
            self._check_cached()
        for term in built:
            term.bind(pair)
        self.mamba_layers = pair.mamba_layers
        if trains is None and stage is not None:
            trains = trained_in(stage)
        if adapters is not None:
            table = add_adapters(self.student, trains, **adapters)
        elif trains is None and stage is None:
            # What the student's own config has frozen stays frozen.
            table = table_of_trained(self.student)
        else:
            table = freeze_all_but(self.student, trains)
        self._bind_heads()
        name = 'no stage' if stage is None else f'stage {stage!r}'
        print_log(f'LanguageDistiller, {name}:\n{table}', logger='current')

    @classmethod
    def computes(cls, kind: type[Term]) -> bool:
        """Terms on the free-running student, or on its layers."""
        return issubclass(kind, (ModelTerm, ForcedTerm))

    @property
    def _cached(self) -> bool:
        """Whether the teacher's outputs are read instead of computed."""
        return isinstance(self.teacher, CachedTeacher)

    def _check_cached(self) -> None:
        """Refuse settings that a recorded teacher does not support.

        Raises:
            ValueError: A term compares layers, or validation compares the models.
        """
        for key, term in self.terms.items():
            if not getattr(term, 'only_outputs', False):
                raise ValueError(
                    f'LanguageDistiller: terms.{key} compares layers, which a '
                    'CachedTeacher does not have; use TokenKLTerm and NextTokenTerm, '
                    'or the teacher itself.'
                )
        if self.compare:
            raise ValueError(
                'LanguageDistiller: a CachedTeacher knows only its recorded samples '
                'and cannot be compared in validation; set model.compare=False.'
            )

    def _bind_heads(self) -> None:
        """Prepare both models for terms that read what goes into their heads.

        Raises:
            ValueError: A model has no suitable head, or another term reads logits.
        """
        terms = {k: t for k, t in self.terms.items() if isinstance(t, ModelTerm)}
        fused = [key for key, term in terms.items() if term.fused]
        if not fused:
            return
        readers = [key for key, term in terms.items() if term.needs_logits]
        if readers:
            raise ValueError(
                f'LanguageDistiller: terms.{fused[0]} has fused=True and no logits '
                f'[B, L, V], which terms.{readers[0]} needs; fuse that term too, or '
                f'use terms.{fused[0]}.task_weight in place of a NextTokenTerm.'
            )
        try:
            self._student_last = HeadInputs(self.student)
            if not self._cached:
                self._teacher_last = HeadInputs(self.teacher, shared=True)
        except ValueError as error:
            raise ValueError(
                f'LanguageDistiller: terms.{fused[0]}.fused=True cannot be used: '
                f'{error}.'
            ) from error

    def init_weights(self) -> None:
        """Do nothing; see :meth:`CausalLM.init_weights`."""

    def no_weight_decay(self) -> set[str]:
        """See :func:`~mmtransmamba.models.trainable.base.exempt_from_decay`."""
        return exempt_from_decay(self)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        mode: str = 'tensor',
        share: Share | None = None,
        **inputs: Any,
    ) -> Tensor | dict[str, Tensor] | list[dict[str, float]]:
        """Like :class:`CausalLM`; ``mode='loss'`` distils.

        Args:
            input_ids, attention_mask, labels: ``[B, L]``.
            mode: ``'loss'``, ``'predict'`` or ``'tensor'``.
            share: See :meth:`losses`.
            **inputs: Further inputs of both models, such as images.
        """
        inputs = dict(inputs, input_ids=input_ids, attention_mask=attention_mask)
        if mode == 'loss':
            if share is None:
                counts = count_tokens(input_ids, labels, attention_mask)
                share = self.share_under_wrapper(counts)
            return self.losses(inputs, labels, share=share)
        self._check_tokens(self.student, input_ids, inputs.get('pixel_values'))
        if mode == 'predict' and 'answers' in inputs:
            return answer(self.head, self.student, self.companions, inputs)
        logits = self.student(**inputs, use_cache=False).logits
        if mode != 'predict':
            return logits
        target = None
        if self.compare:
            with torch.no_grad():
                given = _for_teacher(inputs, _find_packing(inputs))
                target = self.teacher(**given, use_cache=False).logits
        return score_tokens(logits, labels, target, attention_mask)

    @torch.no_grad()
    def teacher_predict(self, data: dict[str, Any]) -> list[dict] | None:
        """The teacher's result for ``mode='predict'``.

        None for a recorded teacher, which answers only for its own samples.
        """
        if self._cached:
            return None
        inputs = {key: value for key, value in data.items() if key != 'labels'}
        if 'answers' in inputs:
            return answer(self.head, self.teacher, self.companions, inputs)
        given = _for_teacher(inputs, _find_packing(inputs))
        logits = self.teacher(**given, use_cache=False).logits
        return score_tokens(logits, data['labels'], mask=data.get('attention_mask'))

    def count_units(self, data: dict[str, Any]) -> dict[str, Tensor]:
        """Numbers of predicted tokens and of non-padding tokens in a batch."""
        return count_tokens(**data)

    def losses_of(
        self, data: dict[str, Any], share: Share | None, backward: PartialBackward
    ) -> dict[str, Tensor]:
        """Losses of a batch, with a backward pass for each forced layer.

        FSDP gathers parameters only during the forward pass of the whole, so there is
        a single backward pass then.
        """
        if is_fully_sharded(self):
            return super().losses_of(data, share, backward)
        inputs = {key: value for key, value in data.items() if key != 'labels'}
        return self.losses(inputs, data.get('labels'), backward, share)

    def losses(
        self,
        inputs: dict[str, Tensor],
        labels: Tensor | None,
        backward: Callable[[Tensor], None] | None = None,
        share: Share | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            inputs: Inputs of both models.
            labels: ``[B, L]``; terms on logits need them.
            backward: Called with each part of the loss as soon as it is computed.
            share: The batch's share of the step, see
                :mod:`~mmtransmamba.models.trainable.step_average`; None if it is the
                whole step.

        Returns:
            ``loss_KEY`` for each key of ``terms``, with ``_entropy`` for the
            regulariser of its weighting; detached if ``backward`` is given.
        """
        checked = inputs['input_ids'], inputs.get('pixel_values')
        self._check_tokens(self.student, *checked)
        if not self._cached:
            self._check_teacher_tokens(self.teacher, *checked)
        forced = self.active(ForcedTerm)
        free = self.active(ModelTerm)
        # Every parameter takes part in every step, as DDP requires. Layers that receive
        # the teacher's hidden states do not use the connector.
        idle = [] if free else parameters_for_images(self.student)
        losses = {
            f'loss_{key}': zero_of(
                [*term.parameters(), *idle], inputs['input_ids'].device
            )
            for key, term in self.terms.items()
        }
        mask = inputs.get('attention_mask')
        if mask is None:
            mask = torch.ones_like(inputs['input_ids'])
        mask = mask.bool()
        layers = layers_of(self.student)
        rows = {}
        if forced and not mask.all():
            rows |= dict(padding_mask=mask, gaps=has_gaps(mask, None, 0))
        packing = _find_packing(inputs)
        if packing is not None:
            rows['packing'] = packing
        if inputs.get('position_ids') is not None:
            rows['position_ids'] = inputs['position_ids']
        teacher_hidden: dict[int, Tensor] = {}
        teacher_layers = {i for term in free.values() for i in term.teacher_layers}

        def visit(call: LayerCall) -> None:
            if self.teacher_device is not None:
                call = moved(call, mask.device)
            if call.index in teacher_layers:
                teacher_hidden[call.index] = call.output
            if call.index not in self.mamba_layers:
                return
            batch = ForcedLayer(layers[call.index], call, mask, rows)
            for key, term in forced.items():
                # The teacher runs without gradients.
                with torch.enable_grad():
                    for name, _, loss in scaled_losses(key, term, batch):
                        loss = times(share, term.unit, loss)
                        if backward is not None:
                            backward(loss)
                            loss = loss.detach()
                        losses[name] = losses[name] + loss

        watched = teacher_layers | (set(self.mamba_layers) if forced else set())
        spoken = self._run_teacher(_for_teacher(inputs, packing), free, watched, visit)
        if free:
            free_losses = self._free_losses(
                free, inputs, labels, mask, spoken, teacher_hidden, share
            )
            if backward is not None:
                backward(sum(free_losses.values()))
                free_losses = {k: loss.detach() for k, loss in free_losses.items()}
            losses |= free_losses
        return losses

    @torch.no_grad()
    def _run_teacher(
        self,
        inputs: dict[str, Tensor],
        free: dict[str, ModelTerm],
        watched: set[int],
        visit: Callable[[LayerCall], None],
    ) -> dict[str, Any]:
        """Run the teacher as far as the terms need it; fields of the batch."""
        fused = any(term.fused for term in free.values())
        needs_logits = any(term.needs_teacher_logits for term in free.values())
        if not (needs_logits or fused or watched):
            return {}
        if self._cached:
            return dict(teacher_top=self.teacher(**inputs))
        with watch(self.teacher, watched, visit):
            if fused:
                last, head = self._teacher_last(inputs), head_of(self.teacher)
                if self.teacher_device is not None:
                    home = inputs['input_ids'].device
                    last, head = last.to(home), deepcopy(head).to(home)
                return dict(teacher_last=(last, head))
            # The logits of one token cost little compared with those of all.
            keep = {} if needs_logits else {'logits_to_keep': 1}
            output = self.teacher(**inputs, use_cache=False, **keep)
        return dict(teacher_logits=output.logits) if needs_logits else {}

    def _free_losses(
        self,
        free: dict[str, ModelTerm],
        inputs: dict[str, Tensor],
        labels: Tensor | None,
        mask: Tensor,
        spoken: dict[str, Any],
        teacher_hidden: dict[int, Tensor],
        share: Share | None,
    ) -> dict[str, Tensor]:
        """Losses of the terms on outputs of the whole student."""
        hidden: dict[int, Tensor] = {}

        def keep(call: LayerCall) -> None:
            hidden[call.index] = call.output

        fields: dict[str, Any] = dict(logits=None, teacher_logits=None) | spoken
        with watch(self.student, {i for t in free.values() for i in t.layers}, keep):
            if any(term.fused for term in free.values()):
                last = touch_image_parameters(self._student_last(inputs), self.student)
                fields['last'] = last, head_of(self.student)
            else:
                logits = self.student(**inputs, use_cache=False).logits
                fields['logits'] = touch_image_parameters(logits, self.student)
        batch = LanguageBatch(
            labels=labels,
            mask=mask,
            hidden=hidden,
            teacher_hidden=teacher_hidden,
            **fields,
        )
        losses = {}
        for key, term in free.items():
            for name, part, loss in scaled_losses(key, term, batch):
                losses[name] = times(share, term.unit_of(part), loss)
        return losses


def _unpack(
    model: dict | nn.Module,
) -> tuple[nn.Module, Companions, nn.Module | None]:
    """The transformers model in a distiller's argument, with its processor and head."""
    if not isinstance(model, nn.Module):
        model = MODELS.build(model)
    if isinstance(model, TransformersModel):
        return model.lm, model.companions, getattr(model, 'head', None)
    return model, Companions(), None


def _find_packing(inputs: dict[str, Tensor | None]) -> Packing | None:
    """Positions of the sequences if rows contain several."""
    positions, mask = inputs.get('position_ids'), inputs.get('attention_mask')
    if positions is None:
        return None
    positions = positions.expand(len(inputs['input_ids']), -1)
    return find_packing(positions, None if mask is None else mask.bool())


def _for_teacher(
    inputs: dict[str, Tensor | None], packing: Packing | None
) -> dict[str, Tensor | None]:
    """The inputs for a model of transformers, which must see what the student sees.

    Without a mask it begins a new sequence at each jump of the positions, with a mask
    nowhere. So packed sequences have no mask, and padding positions that jump; a single
    sequence that jumps has one.

    Raises:
        ValueError: Positions jump within a packed sequence, or there is padding in it.
    """
    positions, mask = inputs.get('position_ids'), inputs.get('attention_mask')
    if positions is None:
        return inputs
    if packing is None:
        if mask is None and has_jumps(positions):
            return dict(inputs, attention_mask=torch.ones_like(inputs['input_ids']))
        return inputs
    token, ids = packing.is_token, packing.ids
    positions = positions.expand_as(ids)
    # No token follows the highest position, so padding that has it ends a sequence.
    highest = positions.masked_fill(~token, 0).amax(-1, keepdim=True)
    positions = torch.where(token, positions, highest)
    split = positions.diff(dim=-1) != 1
    inside = token[:, 1:] & (ids[:, 1:] == ids[:, :-1])
    inside &= token.cumsum(-1)[:, :-1] > 0
    if (split & inside).any():
        raise ValueError(
            'LanguageDistiller: position_ids of a packed sequence jump, or it has '
            'padding between its tokens; the teacher would read it as two sequences.'
        )
    return dict(inputs, position_ids=positions, attention_mask=None)
