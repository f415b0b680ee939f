"""Folders in LLaVA's original layout, and its forward in float64."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from published_folders import (
    prefixed,
    random_state,
    tower_shapes,
    with_biases,
    write_folder,
)
from published_math import attend, linear, llama_mlp, rms_norm, rotate
from torch import Tensor

C, H, KV, D, MLP, VOCAB, LAYERS = 32, 4, 2, 8, 48, 110, 2
WIDTH, TOWER_LAYERS, SIDE, PATCH = 16, 3, 12, 4
EPS, THETA = 1e-5, 1e4
TOWER = 'model.vision_tower.vision_tower.vision_model.'
VISION = dict(
    model_type='clip_vision_model',
    hidden_size=WIDTH,
    intermediate_size=24,
    num_hidden_layers=TOWER_LAYERS,
    num_attention_heads=2,
    image_size=SIDE,
    patch_size=PATCH,
)
CONFIG = dict(
    model_type='llava',
    architectures=['LlavaLlamaForCausalLM'],
    auto_map={'AutoModel': 'llava.Evil'},
    hidden_size=C,
    intermediate_size=MLP,
    num_hidden_layers=LAYERS,
    num_attention_heads=H,
    num_key_value_heads=KV,
    vocab_size=VOCAB,
    hidden_act='silu',
    rms_norm_eps=EPS,
    max_position_embeddings=64,
    tie_word_embeddings=False,
    torch_dtype='float16',
    mm_vision_tower='the-tower',
    mm_hidden_size=WIDTH,
    mm_projector_type='mlp2x_gelu',
    mm_vision_select_layer=-2,
    mm_vision_select_feature='patch',
    mm_use_im_start_end=False,
    mm_use_im_patch_token=False,
    image_aspect_ratio='pad',
    freeze_mm_mlp_adapter=False,
    use_mm_proj=True,
)


def shapes() -> dict[str, tuple]:
    """All tensors of a LLaVA, under the published names."""
    table = {
        'model.embed_tokens.weight': (VOCAB, C),
        'model.norm.weight': (C,),
        'lm_head.weight': (VOCAB, C),
        **with_biases(
            {'model.mm_projector.0': (C, WIDTH), 'model.mm_projector.2': (C, C)}
        ),
    }
    for i in range(LAYERS):
        at = f'model.layers.{i}.'
        table |= {
            f'{at}input_layernorm.weight': (C,),
            f'{at}post_attention_layernorm.weight': (C,),
            f'{at}mlp.gate_proj.weight': (MLP, C),
            f'{at}mlp.up_proj.weight': (MLP, C),
            f'{at}mlp.down_proj.weight': (C, MLP),
            f'{at}self_attn.q_proj.weight': (H * D, C),
            f'{at}self_attn.k_proj.weight': (KV * D, C),
            f'{at}self_attn.v_proj.weight': (KV * D, C),
            f'{at}self_attn.o_proj.weight': (C, H * D),
        }
    tower = tower_shapes(WIDTH, 24, TOWER_LAYERS, SIDE, PATCH, clip=True)
    return table | prefixed(TOWER, tower)


def project(state: dict, features: Tensor) -> Tensor:
    """Embeddings ``[N, C]`` of a tower's tokens ``[N, WIDTH]``."""
    x = F.gelu(linear(features, state, 'model.mm_projector.0'))
    return linear(x, state, 'model.mm_projector.2')


def decode(state: dict, x: Tensor) -> Tensor:
    """Logits ``[L, V]`` of embeddings ``[L, C]``."""
    for i in range(LAYERS):
        at = f'model.layers.{i}.'
        u = rms_norm(x, state[f'{at}input_layernorm.weight'], EPS)
        q, k, v = (
            linear(u, state, f'{at}self_attn.{name}_proj').reshape(len(u), -1, D)
            for name in 'qkv'
        )
        mixed = attend(rotate(q, THETA), rotate(k, THETA), v)
        x = x + linear(mixed, state, f'{at}self_attn.o_proj')
        u = rms_norm(x, state[f'{at}post_attention_layernorm.weight'], EPS)
        names = (f'{at}mlp.{name}_proj' for name in ('gate', 'up', 'down'))
        x = x + llama_mlp(u, state, *names)
    return linear(rms_norm(x, state['model.norm.weight'], EPS), state, 'lm_head')


def write(
    folder: Path, where: str = 'outside', extra: dict | None = None, **fields
) -> tuple[Path, dict]:
    """A folder whose vision tower lies in its shards, or in a folder of its own.

    Args:
        folder: Its path.
        where: ``'outside'`` or ``'inside'``.
        extra: Shapes of further tensors.
        **fields: Fields of its config.

    Returns:
        The folder and all tensors.
    """
    state = random_state(shapes() | (extra or {}))
    tower = {k: v for k, v in state.items() if k.startswith(TOWER)}
    rest = {k: v for k, v in state.items() if k not in tower}
    prefix = TOWER.removesuffix('vision_model.')
    write_folder(
        folder / 'the-tower', VISION, {k.removeprefix(prefix): tower[k] for k in tower}
    )
    write_folder(folder, CONFIG | fields, rest if where == 'outside' else state)
    return folder, state
