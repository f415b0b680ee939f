"""Tiny hybrids of every family that can be exported to Granite."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import mmtransmamba

SIZES = dict(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
LLAMA3 = dict(
    rope_type='llama3',
    rope_theta=5e5,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
TEACHERS = {
    'llama': ('llama', {}),
    'llama, tied': ('llama', dict(tie_word_embeddings=True)),
    'llama, four queries a key': ('llama', dict(num_key_value_heads=1)),
    'llama, no sharing': ('llama', dict(num_key_value_heads=4)),
    'llama 3 positions': ('llama', dict(rope_parameters=LLAMA3)),
    'llama, other epsilon': ('llama', dict(rms_norm_eps=1e-3)),
    'internlm2 with biases': ('llama', dict(attention_bias=True)),
    'qwen2': ('qwen2', {}),
    'mistral without window': ('mistral', dict(sliding_window=None)),
    'mistral, heads narrower than the hidden size': (
        'mistral',
        dict(sliding_window=None, hidden_size=48, head_dim=8),
    ),
}
WIDE = ('llama', dict(head_dim=16))  # 4 heads of 16 channels in 32


def make_hybrid(teacher='llama', layers=(0, 2), init='vkq', sizes=None, **fields):
    """A hybrid with weights so large that every part matters."""
    family, changes = (TEACHERS | dict(wide=WIDE)).get(teacher, (teacher, {}))
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES | changes | (sizes or {}))
    model = AutoModelForCausalLM.from_config(config)
    hybrid, _ = mmtransmamba.convert(model, layers=list(layers), init=init, **fields)
    with torch.no_grad():
        for name, parameter in hybrid.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
            elif name.endswith(('bias', 'D')) or 'norm' in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return hybrid.eval()
