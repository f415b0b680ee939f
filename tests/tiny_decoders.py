"""Tiny pre-trained decoders, made on the spot."""

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = dict(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=None,
)
FAMILIES = {
    'llama': dict(num_key_value_heads=2),
    'mistral': dict(num_key_value_heads=2, sliding_window=None),
    'phi': dict(partial_rotary_factor=0.5),
    'qwen2': dict(num_key_value_heads=2),
    'qwen3': dict(num_key_value_heads=2, head_dim=8),
}


def tiny_teacher(family: str = 'llama', **fields) -> nn.Module:
    """A Transformer of a family; all its weights, norms and biases included, random."""
    config = AutoConfig.for_model(family, **SIZES | FAMILIES[family] | fields)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            nn.init.normal_(parameter, mean='norm' in name, std=0.15)
    return model


def tokens(rows: int = 2, length: int = 12, seed: int = 1) -> torch.Tensor:
    """Token ids ``[rows, length]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 61, (rows, length), generator=generator)
