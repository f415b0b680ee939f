"""A transformers model with the interface that mmengine's Runner expects."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.generation import repair_generation_config
from mmtransmamba.models.language import cast_parameters
from mmtransmamba.models.token_losses import predicted
from mmtransmamba.models.trainable.naming import use_names_of
from mmtransmamba.models.trainable.origin import Origin
from mmtransmamba.models.trainable.step_average import (
    BATCHES,
    KEPT,
    PREDICTED,
    Share,
    StepAverage,
    times,
)
from mmtransmamba.models.trainable.token_check import TokenCheck
from mmtransmamba.utils.dtypes import floating_dtype


def exempt_from_decay(model: nn.Module) -> set[str]:
    """Names of parameters exempt from weight decay: A and all that are not matrices.

    This follows Mamba's training; the papers on distillation do not specify it.
    """
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim < 2 or name.endswith('.A_log')
    }


class TransformersModel(StepAverage):
    """A transformers model with a language-modelling head, in training or in test.

    Its state dict has the names of the transformers model.

    Args:
        origin: Origin of the weights.
        dtype: Such as ``'float32'``; by default that of the folder. The SSM
            parameters of a hybrid are float32 in any case.
        gradient_checkpointing: Recompute each layer's activations in the backward
            pass instead of storing them.
        average: ``'tokens'``: the loss is the mean over all tokens of an optimizer
            step, in all batches that it accumulates and in all processes;
            ``'batches'``: the mean of the batches' means, as in mmengine. See
            :class:`~mmtransmamba.models.trainable.step_average.StepAverage`.
        data_preprocessor: As in mmengine's ``BaseModel``.

    Attributes:
        lm: The transformers model.
        companions: Its tokenizer or processor.
    """

    def __init__(
        self,
        origin: Origin,
        dtype: str | None,
        gradient_checkpointing: bool,
        average: str,
        data_preprocessor: dict | nn.Module | None,
    ) -> None:
        super().__init__(data_preprocessor)
        self._average_over(average, 'tokens', BATCHES)
        self.lm, self.companions = origin.build()
        if dtype is not None:
            cast_parameters(self.lm, floating_dtype(dtype))
        # It is saved at the end of the training.
        repair_generation_config(self.lm)
        if gradient_checkpointing:
            _enable_checkpointing(self.lm)
        self._check_tokens = TokenCheck()
        use_names_of(self, 'lm')

    def init_weights(self) -> None:
        """Do nothing: the model already has its weights.

        mmengine would call transformers' method of this name, which reinitialises all
        weights that it has not loaded itself.
        """

    def no_weight_decay(self) -> set[str]:
        """See :func:`exempt_from_decay`."""
        return exempt_from_decay(self)

    def count_units(self, data: dict[str, Any]) -> dict[str, Tensor]:
        """Numbers of predicted tokens and of non-padding tokens in a batch."""
        return count_tokens(**data)

    def _logits(
        self, input_ids: Tensor, attention_mask: Tensor | None, inputs: dict[str, Any]
    ) -> Tensor:
        """Logits ``[B, L, V]`` of tokens ``[B, L]``, which are checked first."""
        self._check_tokens(self.lm, input_ids, inputs.get('pixel_values'))
        output = self.lm(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
            **inputs,
        )
        return output.logits

    def _times_share(
        self,
        losses: dict[str, Tensor],
        labels: Tensor,
        mask: Tensor | None,
        share: Share | None,
    ) -> dict[str, Tensor]:
        """Means over the predicted tokens of a batch times its share of the step."""
        if share is None:
            counts = count_tokens(labels, labels, mask)
            share = self.share_under_wrapper(counts)
        return {key: times(share, PREDICTED, loss) for key, loss in losses.items()}


def count_tokens(
    input_ids: Tensor,
    labels: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **_: Any,
) -> dict[str, Tensor]:
    """Numbers of predicted tokens and of non-padding tokens in a batch ``[B, L]``."""
    kept = torch.as_tensor(input_ids.numel(), device=input_ids.device)
    if attention_mask is not None:
        kept = attention_mask.bool().sum()
    learned = torch.zeros_like(kept)
    if labels is not None:
        learned = predicted(labels, attention_mask).sum()
    return {PREDICTED: learned, KEPT: kept}


def _enable_checkpointing(lm: nn.Module) -> None:
    # The second name is the one in older versions of transformers.
    enable = getattr(lm, 'activation_checkpointing_enable', None)
    (enable or lm.gradient_checkpointing_enable)({'use_reentrant': False})
