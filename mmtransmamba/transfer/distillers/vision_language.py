"""A vision-language model as mmengine's Runner wants it."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmtransmamba.models.folders.companions import Companions
from mmtransmamba.models.multimodal.heads import VisionLanguageHead
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.distillers.causal_lm import (
    CausalLM,
    check_folder,
    random_model,
)
from mmtransmamba.transfer.distillers.stages import (
    STAGES,
    check_history,
    freeze_all_but,
    parameters_for_images,
)
from mmtransmamba.transfer.distillers.step_average import BATCHES, Share

_AUTO_CLASS = 'AutoModelForImageTextToText'


@MODELS.register_module()
class VisionLanguageModel(CausalLM):
    """A vision-language model that is trained on, or answers, images and text.

    Its state dict has the names of the transformers model.

    Args:
        path: Folder of a transformers model with its processor, a hybrid of this
            package included.
        vision, language: Instead of it, folders of a vision tower (CLIP or SigLIP) and
            of a causal language model, from which a LLaVA is put together.
        config: Or fields of a transformers config, ``model_type`` among them, for a
            model with random weights.
        seed: Seed of what is drawn.
        convert: Arguments of
            :func:`~mmtransmamba.transfer.vision_language.convert_vlm` besides the
            teacher, which is the model of ``path`` or ``config``: turn it into a
            hybrid.
        stage: Name in :data:`~mmtransmamba.transfer.distillers.stages.STAGES`: what
            does not belong to it is frozen, and a model that must not start it is
            refused.
        trains: Groups of parameters
            (:data:`~mmtransmamba.transfer.distillers.stages.GROUPS`) in place of the
            stage's own. Without stage and groups everything is trained.
        requires: Patterns of the model's last step in place of the stage's own.
        head: Config of a head, which says how questions are answered.
        processor: Folder of the processor, by default ``path``.
        dtype, gradient_checkpointing, average, data_preprocessor: See
            :class:`CausalLM`.

    Raises:
        FileNotFoundError: There is no such folder.
        CheckpointError: The folder's weights, or a state dict, lack tensors of the
            model, or have others.
        StageError: The model does not fit the stage.
        ValueError: Not just one of ``path``, ``config`` and the pair of ``vision`` and
            ``language`` is given.
    """

    def __init__(
        self,
        path: str | None = None,
        vision: str | None = None,
        language: str | None = None,
        config: dict[str, Any] | None = None,
        seed: int = 0,
        convert: dict[str, Any] | None = None,
        stage: str | None = None,
        trains: list[str] | None = None,
        requires: str | list[str] | None = None,
        head: dict | nn.Module | None = None,
        processor: str | None = None,
        dtype: str | None = None,
        gradient_checkpointing: bool = False,
        average: str = 'tokens',
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        super(CausalLM, self).__init__(data_preprocessor)
        self._average_over(average, 'tokens', BATCHES)
        given = [path, config, vision or language]
        if sum(v is not None for v in given) != 1 or (vision is None) != (
            language is None
        ):
            raise ValueError(
                'VisionLanguageModel: give either path, a folder, or config, or both '
                'vision and language.'
            )
        for folder in (path, vision, language, processor):
            check_folder('VisionLanguageModel', folder)
        companions = Companions(processor or path)
        if vision is not None:
            from mmtransmamba.models.folders import assemble_llava

            lm, made = assemble_llava(vision, language, seed=seed)
            companions = Companions(processor, made)
        elif path is not None:
            from mmtransmamba.models.folders import load_vlm

            lm = load_vlm(path) if convert is None else path
        else:
            lm = random_model(config, seed, _AUTO_CLASS)
        if convert is not None:
            from mmtransmamba.transfer.vision_language import convert_vlm

            lm, report = convert_vlm(lm, **convert)
            print_log(f'\n{report}', logger='current')
        self._hold(lm, companions, dtype, gradient_checkpointing)
        self.head = build_head(head or dict(type='mmtransmamba.AnswerHead'))
        self.stage = stage
        if stage is not None:
            check_history(self.lm, stage, requires)
            trains = STAGES[stage].trains if trains is None else trains
        if trains is not None:
            table = freeze_all_but(self.lm, trains)
            name = 'no stage' if stage is None else f'stage {stage!r}'
            print_log(f'VisionLanguageModel, {name}:\n{table}', logger='current')

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        mode: str = 'tensor',
        share: Share | None = None,
        **inputs: Any,
    ) -> Tensor | dict[str, Tensor] | list[dict]:
        """Logits, or what the head makes of them.

        Args:
            input_ids, attention_mask, labels: See :meth:`CausalLM.forward`.
            mode: ``'tensor'``: logits ``[B, L, V]``; ``'loss'``: the head's losses;
                ``'predict'``: with ``answers`` in the batch the head's predictions,
                see :meth:`VisionLanguageHead.predict`, else the scores of
                :meth:`CausalLM.forward`.
            share: See :meth:`CausalLM.forward`.
            **inputs: What else the model takes: ``pixel_values`` ``[N, 3, H, W]`` of
                all images of the batch, unless it has none; and ``answers``,
                ``question_ids``, ``categories`` of questions.
        """
        if mode == 'predict' and 'answers' in inputs:
            inputs |= dict(input_ids=input_ids, attention_mask=attention_mask)
            self._check_tokens(self.lm, input_ids, inputs.get('pixel_values'))
            return answer(self.head, self.lm, self.companions, inputs)
        if mode == 'loss':
            logits = super().forward(input_ids, attention_mask, **inputs)
            logits = touch_image_parameters(logits, self.lm)
            losses = self.head.loss(logits, labels, attention_mask)
            return self._times_share(losses, labels, attention_mask, share)
        return super().forward(input_ids, attention_mask, labels, mode, **inputs)


def touch_image_parameters(logits: Tensor, model: nn.Module) -> Tensor:
    """Logits in whose graph the parameters that serve images have a part, of zero.

    DDP demands that every trained parameter takes part in every step, on every
    process. A batch may well have no image, and of a vision tower the layers behind
    the one that is read are never used.
    """
    if not torch.is_grad_enabled():
        return logits
    return logits + sum(p.sum() * 0.0 for p in parameters_for_images(model))


def build_head(head: dict | nn.Module) -> VisionLanguageHead:
    """The head that a config stands for."""
    return head if isinstance(head, nn.Module) else MODELS.build(head)


def answer(
    head: VisionLanguageHead | None,
    model: nn.Module,
    companions: Companions,
    batch: dict[str, Any],
) -> list[dict[str, str]]:
    """Answer the questions of a batch.

    Raises:
        ValueError: There is no head.
    """
    if head is None:
        raise ValueError(
            'The batch has "answers", but the model has no head that could answer: '
            "give head=dict(type='mmtransmamba.AnswerHead')."
        )
    return head.predict(model, companions.processor, batch)
