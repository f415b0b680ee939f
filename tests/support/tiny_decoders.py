"""Tiny pre-trained decoders, made on the spot."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = dict(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=256,
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
# Their frequencies depend on the length of the text; for heads of eight channels.
LENGTH_ROPES = [
    dict(rope_type='dynamic', factor=4.0, rope_theta=1e4),
    dict(
        rope_type='longrope',
        factor=4.0,
        short_factor=[1.0, 1.1, 1.2, 1.3],
        long_factor=[1.5, 2.0, 3.0, 4.0],
        original_max_position_embeddings=16,
        rope_theta=1e4,
    ),
]

MIXERS = (
    *('Mamba', 'Mamba2', 'GatedDeltaNet', 'KDA', 'SlidingWindow'),
    *('DiscreteMamba2', 'MambaInLlama'),
    *('WindowMamba2', 'WindowGatedDeltaNet'),
)
# What holds for one family's decoder around a mixer holds for it around another.
FAMILY_MIXERS = [
    *((family, mixer) for family in FAMILIES for mixer in MIXERS[:2]),
    *((family, mixer) for family in ('llama', 'qwen3') for mixer in MIXERS[2:5]),
    *(('llama', mixer) for mixer in MIXERS[5:]),
]


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


def internlm2_folder(path: Path) -> nn.Module:
    """A Llama's weights as an InternLM2-style checkpoint, and that Llama."""
    llama = tiny_teacher()
    state = {}
    for name, tensor in llama.state_dict().items():
        for here, theirs in (
            ('model.embed_tokens.', 'model.tok_embeddings.'),
            ('lm_head.', 'output.'),
            ('.self_attn.o_proj.', '.attention.wo.'),
            ('.mlp.gate_proj.', '.feed_forward.w1.'),
            ('.mlp.up_proj.', '.feed_forward.w3.'),
            ('.mlp.down_proj.', '.feed_forward.w2.'),
            ('.input_layernorm.', '.attention_norm.'),
            ('.post_attention_layernorm.', '.ffn_norm.'),
        ):
            name = name.replace(here, theirs)
        if 'self_attn' not in name:
            state[name] = tensor.contiguous()
    for i, layer in enumerate(llama.model.layers):
        attention, rows = layer.self_attn, []
        q = attention.q_proj.weight.view(4, 8, 32)
        for group in range(2):  # each key-value head after the query heads it serves
            rows += [q[2 * group], q[2 * group + 1]]
            rows += [attention.k_proj.weight.view(2, 8, 32)[group]]
            rows += [attention.v_proj.weight.view(2, 8, 32)[group]]
        state[f'model.layers.{i}.attention.wqkv.weight'] = torch.cat(rows).detach()
    path.mkdir()
    save_file(state, path / 'model.safetensors')
    sizes = SIZES | dict(
        num_key_value_heads=2,
        hidden_act='silu',
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        bias=False,
        model_type='internlm2',
    )
    (path / 'config.json').write_text(json.dumps(sizes))
    return llama
