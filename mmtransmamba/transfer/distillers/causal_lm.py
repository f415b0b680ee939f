"""A transformers causal language model as mmengine's Runner wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmtransmamba.models.fit import check_fit
from mmtransmamba.models.folders.companions import Companions
from mmtransmamba.models.generation import repair_generation_config
from mmtransmamba.models.token_losses import (
    mean_over_tokens,
    predicted,
    score_tokens,
    token_nll,
)
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.distillers.naming import OWN_PREFIX
from mmtransmamba.transfer.distillers.step_average import (
    BATCHES,
    Share,
    StepAverage,
    times,
)
from mmtransmamba.transfer.distillers.token_check import TokenCheck
from mmtransmamba.transfer.terms.base import KEPT, PREDICTED
from mmtransmamba.utils.dtypes import floating_dtype

_PREFIX = 'lm.'


@MODELS.register_module()
class CausalLM(StepAverage):
    """A causal language model that is trained on, or tested with, tokens.

    Its state dict has the names of the transformers model.

    Args:
        path: Folder of a transformers model, a hybrid of this package included.
        config: Instead of it fields of a transformers config, ``model_type`` among
            them, for a model with random weights.
        seed: Seed of these.
        convert: Arguments of
            :func:`~mmtransmamba.transfer.language.convert_lm` besides the teacher,
            which is the model of ``path`` or ``config``: turn it into a hybrid.
        dtype: Such as ``'float32'``; by default that of the folder. The SSM
            parameters of a hybrid are float32 in any case.
        gradient_checkpointing: Compute each layer's activations again in the backward
            pass instead of keeping them.
        average: ``'tokens'``: the loss is the mean over all tokens that a step of the
            optimizer learns, of all batches that it accumulates and of all processes;
            ``'batches'``: the mean of the batches' means, as mmengine has it. See
            :class:`~mmtransmamba.transfer.distillers.step_average.StepAverage`.
        data_preprocessor: As in mmengine's ``BaseModel``.

    Raises:
        FileNotFoundError: There is no such folder.
        CheckpointError: The folder's weights, or a state dict, lack tensors of the
            model, or have others.
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
        super().__init__(data_preprocessor)
        self._average_over(average, 'tokens', BATCHES)
        if (path is None) == (config is None):
            raise ValueError('CausalLM: give either path, a folder, or config.')
        check_folder('CausalLM', path)
        from mmtransmamba.models.folders import load_lm
        from mmtransmamba.transfer.language import convert_lm

        if convert is None:
            lm = random_model(config, seed) if path is None else load_lm(path)
        else:
            teacher = random_model(config, seed) if path is None else path
            lm, report = convert_lm(teacher, **convert)
            print_log(f'\n{report}', logger='current')
        self._hold(lm, Companions(path), dtype, gradient_checkpointing)

    def _hold(
        self,
        lm: nn.Module,
        companions: Companions,
        dtype: str | None,
        gradient_checkpointing: bool,
    ) -> None:
        """Make a transformers model the one that is trained.

        Args:
            lm: The model.
            companions: Its tokenizer or processor.
            dtype, gradient_checkpointing: See the class.
        """
        self.companions = companions
        self.lm = lm if dtype is None else _cast(lm, dtype)
        # It is saved at the end of the training.
        repair_generation_config(self.lm)
        if gradient_checkpointing:
            _enable_checkpointing(self.lm)
        self._check_tokens = TokenCheck()
        self._register_state_dict_hook(_to_own_names)
        self._register_load_state_dict_pre_hook(_from_own_names, with_module=True)

    def init_weights(self) -> None:
        """Nothing: the model has its weights.

        mmengine would call transformers' method of this name, which draws anew what
        it has not loaded itself.
        """

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        mode: str = 'tensor',
        share: Share | None = None,
        **inputs: Any,
    ) -> Tensor | dict[str, Tensor] | list[dict[str, float]]:
        """Logits, or what is made of them.

        Args:
            input_ids, attention_mask: ``[B, L]``.
            labels: ``[B, L]``, negative where a token is not to be predicted.
            mode: ``'tensor'``: logits ``[B, L, V]``; ``'loss'``: ``loss_task``, the
                mean negative log-likelihood of the tokens; ``'predict'``: see
                :func:`~mmtransmamba.models.token_losses.score_tokens`.
            share: The batch's share of the step, see
                :mod:`~mmtransmamba.transfer.distillers.step_average`.
            **inputs: What else the model takes, images for example.
        """
        self._check_tokens(self.lm, input_ids, inputs.get('pixel_values'))
        logits = self.lm(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
            **inputs,
        ).logits
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

    def count_units(self, data: dict[str, Any]) -> dict[str, Tensor]:
        """How many tokens of a batch are predicted, and how many are no padding."""
        return count_tokens(**data)

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
    """How many tokens of a batch ``[B, L]`` are predicted and how many no padding."""
    kept = torch.as_tensor(input_ids.numel(), device=input_ids.device)
    if attention_mask is not None:
        kept = attention_mask.bool().sum()
    learned = torch.zeros_like(kept)
    if labels is not None:
        learned = predicted(labels, attention_mask).sum()
    return {PREDICTED: learned, KEPT: kept}


def check_folder(owner: str, path: str | None) -> None:
    """Refuse the name of a folder that does not exist.

    Raises:
        FileNotFoundError: So it is.
    """
    if path is not None and not Path(path).is_dir():
        raise FileNotFoundError(
            f'{owner}: no folder "{path}" with a transformers model.'
        )


def random_model(
    config: dict[str, Any], seed: int, auto_class: str = 'AutoModelForCausalLM'
) -> nn.Module:
    """A transformers model with random weights.

    Args:
        config: Fields of its config, ``model_type`` among them.
        seed: Seed of the weights.
        auto_class: Name of the class of transformers that builds it.

    Raises:
        ValueError: The ``model_type`` is missing or none of transformers'.
    """
    import transformers
    from transformers import CONFIG_MAPPING, AutoConfig

    # Makes the hybrids known to transformers.
    import mmtransmamba.models.language  # noqa: F401

    fields = dict(config)
    kind = fields.pop('model_type', None)
    if kind not in CONFIG_MAPPING:
        raise ValueError(
            f'config: model_type={kind!r} must be one of transformers, such as '
            '"llama" or "llava", or of this package, such as "hybrid_llama".'
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = AutoConfig.for_model(kind, **fields)
        # Whatever the config tells of was done to other weights.
        text = built.get_text_config()
        if hasattr(text, 'transfer_history'):
            text.transfer_history = []
        return getattr(transformers, auto_class).from_config(built)


def _enable_checkpointing(lm: nn.Module) -> None:
    # The second name is the one that older versions of transformers know.
    enable = getattr(lm, 'activation_checkpointing_enable', None)
    (enable or lm.gradient_checkpointing_enable)({'use_reentrant': False})


def _cast(lm: nn.Module, dtype: str) -> nn.Module:
    """Give all parameters one dtype, except those that must be float32."""
    keep = tuple(getattr(lm, '_keep_in_fp32_modules_strict', None) or ())
    target = floating_dtype(dtype)
    for name, parameter in lm.named_parameters():
        if not (keep and name.endswith(keep)):
            parameter.data = parameter.data.to(target)
    return lm


def _to_own_names(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_
) -> None:
    for key in [key for key in state_dict if key.startswith(prefix + _PREFIX)]:
        state_dict[prefix + key[len(prefix + _PREFIX) :]] = state_dict.pop(key)


def _from_own_names(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_
) -> None:
    for key in [key for key in state_dict if key.startswith(prefix)]:
        # A distiller's checkpoint is one of its student, and more.
        if not key.startswith(prefix + OWN_PREFIX):
            state_dict[prefix + _PREFIX + key[len(prefix) :]] = state_dict.pop(key)
    check_fit(module.lm, state_dict, prefix + _PREFIX)
