"""A vision-language model for mmengine's Runner."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from mmtransmamba.models.token_losses import score_tokens
from mmtransmamba.models.trainable.answering import answer, build_head
from mmtransmamba.models.trainable.base import TransformersModel
from mmtransmamba.models.trainable.origin import VISION_LANGUAGE, Origin
from mmtransmamba.models.trainable.stages import (
    check_history,
    freeze_all_but,
    touch_image_parameters,
    trained_in,
)
from mmtransmamba.models.trainable.step_average import Share
from mmtransmamba.registry import MODELS


@MODELS.register_module()
class VisionLanguageModel(TransformersModel):
    """A vision-language model that is trained on, or answers, images and text.

    Its state dict has the names of the transformers model.

    Args:
        path: Folder of a transformers model with its processor, possibly a hybrid of
            this package.
        vision, language: Alternatively, folders of a vision tower (CLIP or SigLIP) and
            of a causal language model, from which a LLaVA is assembled.
        config: Alternatively, fields of a transformers config, including
            ``model_type``, for a model with random weights.
        seed: Seed of the random weights.
        convert: Arguments of
            :func:`~mmtransmamba.transfer.convert.convert` except the teacher,
            which is the model of ``path`` or ``config``, to turn it into a hybrid.
        stage: Name in :data:`~mmtransmamba.models.trainable.stages.STAGES`. Parameters
            outside the stage are frozen, and a model that does not meet its
            requirements is refused.
        trains: Groups of parameters
            (:data:`~mmtransmamba.models.trainable.stages.GROUPS`) instead of the
            stage's own. Without stage and groups, everything is trained.
        requires: Patterns for the model's last step instead of the stage's own.
        head: Config of a head, which defines how questions are answered.
        processor: Folder of the processor, by default ``path``.
        dtype, gradient_checkpointing, average, data_preprocessor: See
            :class:`~mmtransmamba.models.trainable.base.TransformersModel`.

    Raises:
        FileNotFoundError: A folder does not exist.
        CheckpointError: The folder's weights, or a state dict, lack tensors of the
            model, or contain others.
        StageError: The model does not fit the stage.
        ValueError: Not exactly one of ``path``, ``config`` and the pair of ``vision``
            and ``language`` is given.
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
        origin = Origin(
            'VisionLanguageModel',
            VISION_LANGUAGE,
            path=path,
            config=config,
            vision=vision,
            language=language,
            seed=seed,
            convert=convert,
            processor=processor,
        )
        super().__init__(
            origin, dtype, gradient_checkpointing, average, data_preprocessor
        )
        self.head = build_head(head or dict(type='mmtransmamba.AnswerHead'))
        self.stage = stage
        if stage is not None:
            check_history(self.lm, stage, requires)
            trains = trained_in(stage) if trains is None else trains
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
        """Logits, or the head's result for them.

        Args:
            input_ids, attention_mask, labels: See :meth:`CausalLM.forward`.
            mode: ``'tensor'``: logits ``[B, L, V]``; ``'loss'``: the head's losses;
                ``'predict'``: with ``answers`` in the batch the head's predictions,
                see :meth:`VisionLanguageHead.predict`, else the scores of
                :meth:`CausalLM.forward`.
            share: See :meth:`CausalLM.forward`.
            **inputs: Further inputs of the model: ``pixel_values`` ``[N, 3, H, W]`` of
                all images in the batch, if any (LLaVA-NeXT: ``[N, tiles, 3, H, W]``
                and ``image_sizes``); and ``answers``, ``question_ids``,
                ``categories`` of questions.
        """
        if mode == 'predict' and 'answers' in inputs:
            inputs |= dict(input_ids=input_ids, attention_mask=attention_mask)
            self._check_tokens(self.lm, input_ids, inputs.get('pixel_values'))
            return answer(self.head, self.lm, self.companions, inputs)
        logits = self._logits(input_ids, attention_mask, inputs)
        if mode == 'loss':
            logits = touch_image_parameters(logits, self.lm)
            losses = self.head.loss(logits, labels, attention_mask)
            return self._times_share(losses, labels, attention_mask, share)
        if mode == 'predict':
            return score_tokens(logits, labels, mask=attention_mask)
        return logits
