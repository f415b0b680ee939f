"""Mamba layers as MambaInLlama's code writes them; MaTVLM uses the same code.

Published folders: ``JunxiongWang/MambaInLlama_*``, ``Mamba2InLlama_*``,
``Llama3*-Mamba-*-distill``, ``Llama3*-Mamba2-*-distill`` and ``hustvl/MaTVLM_*``.
Besides ``config.json`` they have ``mamba_config.json``. Source: jxiw/MambaInLlama,
``mamba/hybrid_mamba_layer.py``, ``mamba2/hybrid_mamba_layer.py`` and
``hybrid_mamba_config.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmtransmamba.models.folders.published.fields import (
    check_values,
    file_in,
    given,
    need,
    part_config,
    read_layers,
    with_mamba,
)
from mmtransmamba.models.folders.published.weight_table import (
    Entry,
    Part,
    TableSource,
    entries_of,
    in_float32,
    rows,
    twice_in_float32,
    whole,
)
from mmtransmamba.models.folders.sources import TensorSource
from mmtransmamba.models.language import HYBRIDS
from mmtransmamba.utils.text_files import read_json

MAMBA_CONFIG = 'mamba_config.json'
MIXER = dict(type='Mamba2', d_conv=4, norm='gated_per_head', norm_eps=1e-5)
"""The mixer here that computes the published Mamba-2 layers."""
MIXER_1 = dict(type='MambaInLlama', d_conv=4)
"""The mixer here that computes the published Mamba-1 layers."""
UNUSED = r'rotary_emb\.inv_freq$'
"""Tensors that older folders have though they are computed from the config."""
_FAMILIES = ('llama', 'mistral')


def mamba2_entries(at: str, to: str, config: Any) -> list[Entry]:
    """The table of one Mamba-2 layer.

    Args:
        at: Prefix of its published names.
        to: Prefix of its names here.
        config: Config of the hybrid decoder.
    """
    hidden, heads = config.hidden_size, config.num_attention_heads
    size = getattr(config, 'head_dim', None) or hidden // heads
    inner, d_xb = heads * size, (config.num_key_value_heads or heads) * size
    channels = 2 * d_xb + inner
    weights = dict(z_proj=inner, x_proj=d_xb, B_proj=d_xb, C_proj=inner, dt_proj=heads)

    def entry(name: str, shape: Iterable[int], part: Part = whole) -> Entry:
        return Entry(at + name, tuple(shape), {to + name: part})

    return [
        rows(
            f'{at}in_proj.weight',
            {f'{to}{name}.weight': count for name, count in weights.items()},
            hidden,
        ),
        entry('conv1d.weight', (channels, 1, MIXER['d_conv'])),
        entry('conv1d.bias', (channels,)),
        entry('dt_bias', (heads,), in_float32),
        entry('A_log', (heads,), in_float32),
        entry('D', (heads,), in_float32),
        entry('norm.weight', (inner,)),
        entry('out_proj.weight', (hidden, inner)),
    ]


def mamba1_entries(at: str, to: str, config: Any) -> list[Entry]:
    """The table of one Mamba-1 layer; see :func:`mamba2_entries`."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    size = getattr(config, 'head_dim', None) or hidden // heads
    inner, d_xb = heads * size, (config.num_key_value_heads or heads) * size
    rank, states = -(-hidden // 16), config.mixer['d_state']

    def entry(
        name: str, shape: Iterable[int], part: Part = whole, ours: str | None = None
    ) -> Entry:
        return Entry(at + name, tuple(shape), {to + (ours or name): part})

    return [
        entry('in_proj_x.weight', (d_xb, hidden), ours='x_proj.weight'),
        entry('in_proj_z.weight', (inner, hidden), ours='z_proj.weight'),
        entry('B_proj.weight', (d_xb, hidden)),
        entry('C_proj.weight', (inner, hidden)),
        entry('dt_proj_down.weight', (rank, hidden), ours='dt_down.weight'),
        entry('dt_proj.weight', (inner, rank)),
        # The published layer adds it in the projection, and again in the scan.
        entry('dt_proj.bias', (inner,), twice_in_float32),
        entry('conv1d.weight', (inner, 1, MIXER_1['d_conv'])),
        entry('conv1d.bias', (inner,)),
        entry('A_log', (inner, states), in_float32),
        entry('D', (inner,), in_float32),
        entry('out_proj.weight', (hidden, inner)),
    ]


def hybrid_text_config(
    folder: str | Path, text: Any, history: str, mamba1: bool = False
) -> Any:
    """The config of a hybrid from a Transformer's config and ``mamba_config.json``.

    Args:
        folder: The published folder.
        text: Config of the Transformer.
        history: Note on the origin of the weights.
        mamba1: Whether the layers may be Mamba-1.

    Raises:
        ValueError: A field contradicts the Transformer's config, or belongs to
            unsupported layers.
    """
    where = file_in(folder, MAMBA_CONFIG)
    fields = read_json(Path(folder) / MAMBA_CONFIG)
    if not isinstance(fields, dict):
        raise ValueError(f'{where}: it must hold an object with fields.')
    fields = given(fields)
    heads = text.num_attention_heads
    size = getattr(text, 'head_dim', None) or text.hidden_size // heads
    ssm = given(need(where, fields, 'ssm_cfg'))
    if 'ngroups' not in ssm and not mamba1:
        raise ValueError(
            f'{where}: ssm_cfg={ssm!r} has no ngroups, so the layers are Mamba-1, '
            'which can be read in language models only.'
        )
    same = dict(
        d_model=text.hidden_size,
        d_inner=heads * size,
        d_xb=(text.num_key_value_heads or heads) * size,
        n_layer=text.num_hidden_layers,
        intermediate_size=text.intermediate_size,
        vocab_size=text.vocab_size,
        hidden_act=text.hidden_act,
    )
    for name in ('rms_norm_eps', 'layer_norm_eps'):
        if hasattr(text, name):
            same[name] = getattr(text, name)
    check_values(where, fields, same)
    check_values(where, fields, dict(bidirectional=False, is_bias=False))
    if 'ngroups' in ssm:
        mixer = MIXER
        accepted = dict(ngroups=heads, d_state=size, repeat_kv_before_conv=False)
        accepted |= dict(rmsnorm=True, norm_before_gate=False, D_has_hdim=False)
        accepted |= dict(bias=False)
    else:
        mixer = MIXER_1 | dict(d_state=ssm.get('d_state', 16))
        accepted = dict(dt_rank=('auto', -(-text.hidden_size // 16)))
        accepted |= dict(repeat_kv_before_conv=True, proj_x_bias=False)
        accepted |= dict(proj_z_bias=False, out_proj_bias=False)
    accepted |= dict(expand=1, d_conv=4, conv_bias=True)
    check_values(f'{where}: ssm_cfg', ssm, accepted)
    layers = read_layers(
        f'{where}: attn_layers', fields.get('attn_layers'), text.num_hidden_layers
    )
    return with_mamba(text, layers, mixer, history)


def read_mamba_in_llama(
    folder: str | Path, raw: dict[str, Any], source: TensorSource
) -> tuple[type, Any, TensorSource]:
    """Class, config and tensors of a MambaInLlama or Mamba2InLlama folder.

    Args:
        folder: The folder.
        raw: Fields of its ``config.json``, which is the Transformer's.
        source: Its tensors.

    Raises:
        CheckpointError: Tensors do not fit the config.
        ValueError: A field contradicts another, or cannot be read.
    """
    text = part_config(file_in(folder), raw, _FAMILIES)
    history = 'published:MambaInLlama'
    config = hybrid_text_config(folder, text, history, mamba1=True)
    model_class = HYBRIDS[text.model_type][2]
    mamba1 = config.mixer['type'] == MIXER_1['type']
    table = mamba1_entries if mamba1 else mamba2_entries
    special = [
        entry
        for i in config.mamba_layers
        for entry in table(
            f'model.layers.{i}.mamba.', f'model.layers.{i}.self_attn.', config
        )
    ]
    entries = entries_of(model_class, config, str, special)
    if config.tie_word_embeddings:
        entries.append(
            Entry('lm_head.weight', (config.vocab_size, config.hidden_size), {})
        )
    return model_class, config, TableSource(source, entries, folder, UNUSED)
