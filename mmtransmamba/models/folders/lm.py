"""Causal language models in memory or in a folder: config, tensors, the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from mmtransmamba.models.folders.assemble import assemble
from mmtransmamba.models.folders.config import read_model_config
from mmtransmamba.models.folders.generation_settings import generation_config_of
from mmtransmamba.models.folders.loading import load_folder
from mmtransmamba.models.folders.published import read_published
from mmtransmamba.models.folders.sources import (
    InternLM2Source,
    StateDictSource,
    TensorSource,
    open_folder,
)
from mmtransmamba.models.generation import repair_generation_config

_INTERNLM2_FIELDS = (
    'vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads '
    'num_key_value_heads hidden_act max_position_embeddings initializer_range '
    'rms_norm_eps tie_word_embeddings bos_token_id eos_token_id pad_token_id '
    'quantization_config'
).split()


def read_lm(model: nn.Module | str | Path) -> tuple[Any, TensorSource]:
    """Config and tensors of a transformers model, or of a folder that contains one.

    An InternLM2-style folder is read as a Llama, and a folder in a published layout as
    a hybrid. The weights of a folder are read one tensor at a time.
    """
    if isinstance(model, nn.Module):
        return model.config, StateDictSource(model.state_dict())
    raw = read_model_config(model)
    published = read_published(model, raw)
    if published is not None:
        return published.config, published.source
    source, config = open_folder(model), _config_of(raw, model)
    if _is_internlm2(raw):
        heads = config.num_attention_heads, config.num_key_value_heads
        source = InternLM2Source(source, *heads)
    return config, source


def load_lm(folder: str | Path) -> nn.Module:
    """The causal language model of a folder, possibly a hybrid of this package.

    Nothing is downloaded, and no code in the folder is run.

    Raises:
        FileNotFoundError: The folder does not exist.
        CheckpointError: The folder's tensors do not match its config, or in an
            InternLM2-style folder those of a Llama.
        ValueError: A field of a published config cannot be read.
    """
    raw = read_model_config(folder)
    published = read_published(folder, raw)
    if published is not None:
        return published.build(folder, has_vision=False)
    if not _is_internlm2(raw):
        return load_folder(AutoModelForCausalLM, folder)
    config, source = read_lm(folder)
    model = assemble(LlamaForCausalLM, config, source.items())
    model.generation_config = generation_config_of(folder) or model.generation_config
    repair_generation_config(model)
    return model


def _config_of(raw: dict[str, Any], model: str | Path) -> Any:
    if not _is_internlm2(raw):
        return AutoConfig.from_pretrained(
            str(model), local_files_only=True, trust_remote_code=False
        )
    return LlamaConfig(
        **{name: raw[name] for name in _INTERNLM2_FIELDS if name in raw},
        attention_bias=raw.get('bias', False),
        rope_theta=raw.get('rope_theta', 10000.0),
        rope_scaling=raw.get('rope_scaling'),
    )


def _is_internlm2(raw: dict[str, Any]) -> bool:
    return raw.get('model_type') == 'internlm2'
