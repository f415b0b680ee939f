"""A hybrid decoder as an equivalent ``bamba`` model, which llama.cpp converts to GGUF.

llama.cpp runs Bamba and Granite's hybrid with one graph, ``granitehybrid``. Its
converter rotates q and k of a Bamba, but not of a Granite with Mamba layers. The graph
needs mixers of twice the hidden size, so each head is written twice as wide as in
:mod:`~mmtransmamba.apis.serving.granite`: its channels of z and x are repeated, and the
columns of the output projection for the copies are zero. B, C, the decay and the step
sizes belong to the head, and its root mean square does not change, so this is exact. It
doubles the recurrent state.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BambaConfig, BambaForCausalLM

from mmtransmamba.apis.serving.granite import (
    granite_obstacles,
    has_bias,
    heads_of,
    to_granite,
)

VOCABULARY = 8
"""llama.cpp's converter pads the vocabulary to a multiple of this, not the weights."""
_SAME = (
    *('vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers'),
    *('num_attention_heads', 'num_key_value_heads', 'attention_bias', 'use_cache'),
    *('max_position_embeddings', 'initializer_range', 'rms_norm_eps'),
    *('pad_token_id', 'bos_token_id', 'eos_token_id', 'tie_word_embeddings'),
    *('attention_dropout', 'hidden_act', 'mamba_n_heads', 'mamba_n_groups'),
    *('mamba_d_state', 'mamba_d_conv', 'mamba_conv_bias', 'mamba_proj_bias'),
)
_NAMES = {
    'model.norm.': 'model.final_layernorm.',
    'post_attention_layernorm.': 'pre_ff_layernorm.',
    'shared_mlp.output_linear.': 'feed_forward.down_proj.',
}


def bamba_obstacles(model: nn.Module) -> list[str]:
    """Reasons why a model has no equivalent that llama.cpp runs.

    Args:
        model: A hybrid decoder with a language-modelling head.

    Returns:
        One sentence per obstacle, with its workaround; empty if there is none.
    """
    obstacles = granite_obstacles(model)
    return obstacles or list(_obstacles(model))


def _obstacles(model: nn.Module) -> Iterator[str]:
    config = model.config
    if len(config.mamba_layers) == config.num_hidden_layers:
        yield "no layer has attention: llama.cpp's converter needs one at least"
    if has_bias(model, attention=False):
        yield (
            'the projections of a mixer have biases, or it has no gate: llama.cpp '
            'reads no such biases; convert a family without biases (not Qwen2), with '
            "init='vkq' or 'calibrate'"
        )
    kind = (config.rope_parameters or {}).get('rope_type', 'default')
    if kind != 'default':
        yield (
            f"rope_type={kind!r}: llama.cpp's converter has no tensor for such "
            "positions in this model; export to 'granite' for transformers and vLLM"
        )
    if config.vocab_size % VOCABULARY:
        yield (
            f'vocab_size={config.vocab_size} is not a multiple of {VOCABULARY}, as '
            "llama.cpp's converter requires: resize the embeddings of the teacher"
        )


def to_bamba(model: nn.Module) -> BambaForCausalLM:
    """The equivalent ``bamba`` model, in the dtypes of this one.

    Args:
        model: A hybrid without :func:`obstacles <bamba_obstacles>`.

    Raises:
        ValueError: There are obstacles; the message lists them.
    """
    obstacles = bamba_obstacles(model)
    if obstacles:
        raise ValueError('llama.cpp cannot run the model: ' + '; '.join(obstacles))
    granite = to_granite(model)
    heads, size = granite.config.mamba_n_heads, heads_of(model.config).size
    rope = dict(granite.config.rope_parameters or {'rope_type': 'default'})
    config = BambaConfig(
        **{name: getattr(granite.config, name) for name in _SAME},
        attn_layer_indices=[
            i
            for i in range(model.config.num_hidden_layers)
            if i not in model.config.mamba_layers
        ],
        # A Bamba otherwise rotates half of a head only.
        rope_parameters=rope | dict(partial_rotary_factor=1.0),
        mamba_d_head=2 * size,
        mamba_expand=2,
    )
    with torch.device('meta'):
        bamba = BambaForCausalLM(config)
    tensors = {}
    for name, tensor in granite.state_dict().items():
        tensors |= dict(_renamed(name, tensor, heads, size))
    with torch.no_grad():
        bamba.load_state_dict(tensors, strict=True, assign=True)
    bamba.model.rotary_emb = type(bamba.model.rotary_emb)(config)
    bamba.generation_config = copy.deepcopy(granite.generation_config)
    bamba.tie_weights()
    return bamba.train(model.training)


def _renamed(
    name: str, tensor: Tensor, heads: int, size: int
) -> Iterator[tuple[str, Tensor]]:
    """A tensor of the Granite model as one or two of the Bamba."""
    if name.endswith('shared_mlp.input_linear.weight'):
        at = name.removesuffix('shared_mlp.input_linear.weight') + 'feed_forward.'
        gate, up = tensor.chunk(2)
        yield f'{at}gate_proj.weight', gate.contiguous()
        yield f'{at}up_proj.weight', up.contiguous()
        return
    part = name.rpartition('.mamba.')[2]
    if part in _WIDER:
        tensor = _WIDER[part](tensor, heads, size).contiguous()
    for old, new in _NAMES.items():
        name = name.replace(old, new)
    yield name, tensor


def _twice(tensor: Tensor, heads: int, size: int) -> Tensor:
    """Rows ``[heads * size, ...]``, those of each head twice."""
    return tensor.unflatten(0, (heads, 1, size)).repeat_interleave(2, 1).flatten(0, 2)


def _in_proj(tensor: Tensor, heads: int, size: int) -> Tensor:
    """Rows of z, x, B, C and dt; those of z and x twice."""
    inner = heads * size
    z, x, rest = tensor.split((inner, inner, len(tensor) - 2 * inner))
    return torch.cat((_twice(z, heads, size), _twice(x, heads, size), rest))


def _convolution(tensor: Tensor, heads: int, size: int) -> Tensor:
    """Channels of x, B and C; those of x twice."""
    x, rest = tensor.split((heads * size, len(tensor) - heads * size))
    return torch.cat((_twice(x, heads, size), rest))


def _out_proj(tensor: Tensor, heads: int, size: int) -> Tensor:
    """Columns, and zeros for the copies."""
    columns = tensor.unflatten(1, (heads, 1, size))
    return torch.cat((columns, torch.zeros_like(columns)), 2).flatten(1)


_WIDER: dict[str, Any] = {
    'in_proj.weight': _in_proj,
    'conv1d.weight': _convolution,
    'conv1d.bias': _convolution,
    'norm.weight': _twice,
    'out_proj.weight': _out_proj,
}
