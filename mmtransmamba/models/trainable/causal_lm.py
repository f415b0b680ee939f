"""A transformers causal language model for mmengine's Runner."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmtransmamba.models.token_losses import (
    mean_over_tokens,
    predicted,
    score_tokens,
    token_nll,
)
from mmtransmamba.models.trainable.base import TransformersModel
from mmtransmamba.models.trainable.origin import LANGUAGE, Origin
from mmtransmamba.models.trainable.step_average import Share
from mmtransmamba.registry import MODELS


@MODELS.register_module()
class CausalLM(TransformersModel):
    """A causal language model that is trained on, or evaluated with, tokens.

    Its state dict has the names of the transformers model.

    Args:
        path: Folder of a transformers model, possibly a hybrid of this package.
        config: Alternatively, fields of a transformers config, including
            ``model_type``, for a model with random weights.
        seed: Seed of the random weights.
        convert: Arguments of
            :func:`~mmtransmamba.transfer.convert.convert` except the teacher,
            which is the model of ``path`` or ``config``, to turn it into a hybrid.
        dtype, gradient_checkpointing, average, data_preprocessor: See
            :class:`~mmtransmamba.models.trainable.base.TransformersModel`.

    Raises:
        FileNotFoundError: The folder does not exist.
        CheckpointError: The folder's weights, or a state dict, lack tensors of the
            model, or contain others.
        ValueError: Neither or both of ``path`` and ``config`` are given, or the dtype
            or the config's ``model_type`` is unknown.
    """

    def __init__(
        self,
        path: str | None = None,
        config: dict[str, Any] | None = None,
        seed: int = 0,
        convert: dict[str, Any] | None = None,
        dtype: str | None = None,
        gradient_checkpointing: bool = False,
        average: str = 'tokens',
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        origin = Origin(
            'CausalLM', LANGUAGE, path=path, config=config, seed=seed, convert=convert
        )
        super().__init__(
            origin, dtype, gradient_checkpointing, average, data_preprocessor
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        mode: str = 'tensor',
        share: Share | None = None,
        **inputs: Any,
    ) -> Tensor | dict[str, Tensor] | list[dict[str, float]]:
        """Logits, or a result computed from them.

        Args:
            input_ids, attention_mask: ``[B, L]``.
            labels: ``[B, L]``, negative where a token is not to be predicted.
            mode: ``'tensor'``: logits ``[B, L, V]``; ``'loss'``: ``loss_task``, the
                mean negative log-likelihood of the tokens; ``'predict'``: see
                :func:`~mmtransmamba.models.token_losses.score_tokens`.
            share: The batch's share of the step, see
                :mod:`~mmtransmamba.models.trainable.step_average`.
            **inputs: Further inputs of the model, such as images.
        """
        logits = self._logits(input_ids, attention_mask, inputs)
        if mode == 'loss':
            valid = predicted(labels, attention_mask)
            rows, targets = logits[:, :-1][valid], labels[:, 1:][valid]
            loss = mean_over_tokens(token_nll, rows, targets)
            return self._times_share(
                dict(loss_task=loss), labels, attention_mask, share
            )
        if mode == 'predict':
            return score_tokens(logits, labels, mask=attention_mask)
        return logits
