"""A transformers causal language model as mmengine's Runner wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.distillers.loading import check_fit, refuse
from mmtransmamba.transfer.distillers.naming import OWN_PREFIX
from mmtransmamba.transfer.distillers.token_check import TokenCheck
from mmtransmamba.transfer.token_losses import (
    mean_over_tokens,
    predicted,
    score_tokens,
    token_nll,
)

_PREFIX = 'lm.'


@MODELS.register_module()
class CausalLM(BaseModel):
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
        data_preprocessor: As in mmengine's ``BaseModel``.

    Raises:
        FileNotFoundError: There is no such folder.
        CheckpointError: The folder's weights, or a state dict, lack tensors of the
            model, or have others.
        ValueError: Neither or both of ``path`` and ``config`` are given.
    """

    def __init__(
        self,
        path: str | None = None,
        config: dict[str, Any] | None = None,
        seed: int = 0,
        convert: dict[str, Any] | None = None,
        dtype: str | None = None,
        gradient_checkpointing: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        super().__init__(data_preprocessor)
        self._check_tokens = TokenCheck()
        if (path is None) == (config is None):
            raise ValueError('CausalLM: give either path, a folder, or config.')
        if path is not None and not Path(path).is_dir():
            raise FileNotFoundError(
                f'CausalLM: no folder "{path}" with a transformers model.'
            )
        self.path = path
        if convert is not None:
            lm = self._convert(path, config, seed, dict(convert))
        elif path is not None:
            lm = _load(path)
        else:
            lm = _random(config, seed)
        self.lm = lm if dtype is None else _cast(lm, dtype)
        if gradient_checkpointing:
            _enable_checkpointing(self.lm)
        self._register_state_dict_hook(_to_own_names)
        self._register_load_state_dict_pre_hook(_from_own_names, with_module=True)

    @staticmethod
    def _convert(
        path: str | None, config: dict | None, seed: int, convert: dict
    ) -> nn.Module:
        from mmtransmamba.transfer.language import convert_lm

        teacher = _random(config, seed) if path is None else path
        lm, report = convert_lm(teacher, **convert)
        print_log(f'\n{report}', logger='current')
        return lm

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
        **inputs: Any,
    ) -> Tensor | dict[str, Tensor] | list[dict[str, float]]:
        """Logits, or what is made of them.

        Args:
            input_ids, attention_mask: ``[B, L]``.
            labels: ``[B, L]``, negative where a token is not to be predicted.
            mode: ``'tensor'``: logits ``[B, L, V]``; ``'loss'``: ``loss_task``, the
                mean negative log-likelihood of the tokens; ``'predict'``: see
                :func:`~mmtransmamba.transfer.token_losses.score_tokens`.
            **inputs: What else the model takes, images for example.
        """
        self._check_tokens(self.lm, input_ids)
        logits = self.lm(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
            **inputs,
        ).logits
        if mode == 'loss':
            valid = predicted(labels, attention_mask)
            rows, targets = logits[:, :-1][valid], labels[:, 1:][valid]
            return dict(loss_task=mean_over_tokens(token_nll, rows, targets))
        if mode == 'predict':
            return score_tokens(logits, labels, mask=attention_mask)
        return logits


def _load(path: str) -> nn.Module:
    # Makes the hybrids known to transformers.
    from transformers import AutoModelForCausalLM, PretrainedConfig

    import mmtransmamba.models.language  # noqa: F401

    fields, _ = PretrainedConfig.get_config_dict(path, local_files_only=True)
    if fields.get('model_type') == 'internlm2':
        # Put together tensor by tensor, of which none may be missing.
        from mmtransmamba.transfer.language import load_teacher

        return load_teacher(path)
    # The folder's own dtype: transformers' default since version 5.
    lm, found = AutoModelForCausalLM.from_pretrained(
        path,
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # they are named below
        output_loading_info=True,
    )
    # transformers would only warn, and draw at random what is missing. What is tied
    # to another tensor it does not count.
    refuse(
        f'CausalLM: the weights in "{path}" do not fit its config',
        missing=sorted(found['missing_keys']),
        unexpected=sorted(found['unexpected_keys']),
        mismatched=sorted(
            f'{key} (file {list(given)}, config {list(wanted)})'
            for key, given, wanted in found['mismatched_keys']
        ),
    )
    return lm


def _random(config: dict[str, Any], seed: int) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    import mmtransmamba.models.language  # noqa: F401

    fields = dict(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = AutoConfig.for_model(fields.pop('model_type'), **fields)
        # Whatever the config tells of was done to other weights.
        text = built.get_text_config()
        if hasattr(text, 'transfer_history'):
            text.transfer_history = []
        return AutoModelForCausalLM.from_config(built)


def _enable_checkpointing(lm: nn.Module) -> None:
    # The second name is the one that older versions of transformers know.
    enable = getattr(lm, 'activation_checkpointing_enable', None)
    (enable or lm.gradient_checkpointing_enable)({'use_reentrant': False})


def _cast(lm: nn.Module, dtype: str) -> nn.Module:
    """Give all parameters one dtype, except those that must be float32."""
    keep = tuple(getattr(lm, '_keep_in_fp32_modules_strict', None) or ())
    target = getattr(torch, dtype)
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
