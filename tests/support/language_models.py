"""Tiny Transformers, their hybrids, and batches of tokens for both."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from mmtransmamba.transfer.convert import convert

VOCAB = 29
SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
FAMILIES = dict(
    llama=dict(num_key_value_heads=2, tie_word_embeddings=True),
    phi=dict(partial_rotary_factor=0.5, resid_pdrop=0.0, embd_pdrop=0.0),
    qwen3=dict(num_key_value_heads=2, head_dim=4),
)


def teacher_config(family: str = 'llama', **fields) -> dict:
    """Fields of a tiny Transformer's config."""
    return dict(model_type=family, **SIZES) | FAMILIES[family] | fields


def make_teacher(family: str = 'llama', seed: int = 0, **fields) -> nn.Module:
    """A tiny Transformer with weights large enough that every part matters."""
    torch.manual_seed(seed)
    config = teacher_config(family, **fields)
    config = AutoConfig.for_model(config.pop('model_type'), **config)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
            elif 'norm' in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def make_hybrid(
    teacher: nn.Module, layers=(0, 2), init: str = 'mimic', **fields
) -> nn.Module:
    """The teacher with Mamba layers."""
    return convert(teacher, layers=list(layers), init=init, **fields)[0]


def tokens(batch: int = 2, length: int = 9, seed: int = 0) -> dict[str, Tensor]:
    """A batch without padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCAB, (batch, length), generator=generator)
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids.clone())


def padded(batch: dict[str, Tensor], count: int, side: str) -> dict[str, Tensor]:
    """The batch with padding on one side."""
    pad = (count, 0) if side == 'left' else (0, count)
    return {
        key: nn.functional.pad(value, pad, value=-100 if key == 'labels' else 0)
        for key, value in batch.items()
    }
