"""Folders of tiny random weights in the layouts in which models were published."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

BASE_FIELDS = dict(
    _name_or_path='',
    add_cross_attention=False,
    bad_words_ids=None,
    chunk_size_feed_forward=0,
    cross_attention_hidden_size=None,
    do_sample=False,
    early_stopping=False,
    finetuning_task=None,
    id2label={'0': 'LABEL_0', '1': 'LABEL_1'},
    is_decoder=False,
    is_encoder_decoder=False,
    label2id={'LABEL_0': 0, 'LABEL_1': 1},
    length_penalty=1.0,
    max_length=20,
    num_beams=1,
    num_return_sequences=1,
    output_attentions=False,
    output_hidden_states=False,
    pad_token_id=None,
    prefix=None,
    pruned_heads={},
    repetition_penalty=1.0,
    return_dict=True,
    tie_encoder_decoder=False,
    tie_word_embeddings=True,
    tokenizer_class=None,
    top_k=50,
    top_p=1.0,
    torch_dtype='bfloat16',
    torchscript=False,
    transformers_version='4.37.2',
    typical_p=1.0,
    use_bfloat16=False,
)
"""Fields that transformers before version 5 wrote for a config in another config."""


def random_state(
    shapes: dict[str, tuple[int, ...]], seed: int = 0
) -> dict[str, Tensor]:
    """Weights by name, of a size at which every part of a model matters."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        tensor = torch.randn(shape, generator=generator)
        if 'norm' in name and name.endswith('weight'):
            tensor = 1 + 0.3 * tensor
        elif len(shape) > 1 and 'conv1d' not in name:
            tensor = tensor * 1.5 * torch.tensor(shape[1:]).prod() ** -0.5
        else:
            tensor = tensor * 0.5
        state[name] = tensor
    return state


def write_folder(
    folder: str | Path, config: dict, state: dict[str, Tensor], **files: dict
) -> Path:
    """A folder with ``config.json``, one shard, and other JSON files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, fields in {'config': config, **files}.items():
        (folder / f'{name}.json').write_text(json.dumps(fields), 'utf-8')
    save_file(
        {k: v.contiguous() for k, v in state.items()}, folder / 'model.safetensors'
    )
    return folder


def prefixed(prefix: str, shapes: dict[str, tuple]) -> dict[str, tuple]:
    return {prefix + name: shape for name, shape in shapes.items()}


def mamba_in_llama_shapes(hidden: int, heads: int, kv_heads: int) -> dict[str, tuple]:
    """One Mamba-2 layer of MambaInLlama or MaTVLM; inner width = hidden size."""
    d_xb = hidden // heads * kv_heads
    return {
        'in_proj.weight': (2 * hidden + 2 * d_xb + heads, hidden),
        'conv1d.weight': (hidden + 2 * d_xb, 1, 4),
        'conv1d.bias': (hidden + 2 * d_xb,),
        'dt_bias': (heads,),
        'A_log': (heads,),
        'D': (heads,),
        'norm.weight': (hidden,),
        'out_proj.weight': (hidden, hidden),
    }


def tower_shapes(
    width: int, mlp: int, layers: int, image: int, patch: int, clip: bool
) -> dict[str, tuple]:
    """A CLIP or SigLIP tower; the SigLIP with its attention pooling head."""
    grid = (image // patch) ** 2
    shapes = {
        'embeddings.patch_embedding.weight': (width, 3, patch, patch),
        'embeddings.position_embedding.weight': (grid + clip, width),
    }
    norms = ['post_layernorm']
    linears = {}
    if clip:
        shapes['embeddings.class_embedding'] = (width,)
        norms.append('pre_layrnorm')
    else:
        shapes['embeddings.patch_embedding.bias'] = (width,)
        shapes |= {
            'head.probe': (1, 1, width),
            'head.attention.in_proj_weight': (3 * width, width),
            'head.attention.in_proj_bias': (3 * width,),
        }
        norms.append('head.layernorm')
        linears = {
            'head.attention.out_proj': (width, width),
            'head.mlp.fc1': (mlp, width),
            'head.mlp.fc2': (width, mlp),
        }
    for i in range(layers):
        at = f'encoder.layers.{i}.'
        norms += [f'{at}layer_norm1', f'{at}layer_norm2']
        linears |= {f'{at}self_attn.{n}_proj': (width, width) for n in 'qkv'}
        linears |= {
            f'{at}self_attn.out_proj': (width, width),
            f'{at}mlp.fc1': (mlp, width),
            f'{at}mlp.fc2': (width, mlp),
        }
    for name in norms:
        shapes |= {f'{name}.weight': (width,), f'{name}.bias': (width,)}
    return shapes | with_biases(linears)


def with_biases(linears: dict[str, tuple]) -> dict[str, tuple]:
    """Weights and biases of linear layers."""
    shapes = {f'{name}.weight': shape for name, shape in linears.items()}
    return shapes | {f'{name}.bias': shape[:1] for name, shape in linears.items()}
