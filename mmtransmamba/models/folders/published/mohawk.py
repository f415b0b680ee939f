"""Phi-Mamba and Llamba: decoders of discrete Mamba-2 layers only.

Published folders: ``goombalab/Phi-Mamba`` and ``cartesia-ai/Llamba-1B``, ``-3B`` and
``-8B``. Source: goombalab/phi-mamba, ``modules/{backbone,lm_head,phi_block}.py`` and
``modules/mixers/discrete_mamba2.py``; copies of Llamba's ``modeling_llamba.py``.

The folders have no tokenizer; it is that of Phi-1.5 or of Llama 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtransmamba.models.folders.config import check_sizes
from mmtransmamba.models.folders.published.fields import (
    check_values,
    file_in,
    given,
    need,
    part_config,
    with_mamba,
)
from mmtransmamba.models.folders.published.weight_table import (
    Entry,
    Part,
    TableSource,
    entries_of,
    in_float32,
    rows,
    whole,
)
from mmtransmamba.models.folders.sources import TensorSource, open_folder
from mmtransmamba.models.language import HYBRIDS

LLAMBA_ENDS = (128001, 128008, 128009)
"""Tokens of Llama 3 that end an answer of Llamba."""
_EPS = 1e-5  # written in the published layers, whatever the config says
_ACTIVATIONS = {'identity': 'identity', 'silu': 'silu', 'swish': 'silu'}
_NORMS = {'llama': 'model.norm.', 'phi': 'model.final_layernorm.'}


def is_mohawk(raw: dict[str, Any]) -> bool:
    """Whether a ``config.json`` is Llamba's or Phi-Mamba's."""
    return raw.get('model_type') == 'llamba' or {'LanguageModel', 'MixerModel'} <= set(
        raw
    )


def read_mohawk(
    folder: str | Path, raw: dict[str, Any]
) -> tuple[type, Any, TensorSource]:
    """Class, config and tensors of a Llamba or Phi-Mamba folder.

    Args:
        folder: The folder.
        raw: Fields of its ``config.json``.

    Raises:
        CheckpointError: Tensors do not fit the config.
        ValueError: A field contradicts another, or cannot be read.
    """
    where = file_in(folder)
    llamba = raw.get('model_type') == 'llamba'
    fields, mixer = (_llamba if llamba else _phi_mamba)(where, raw)
    family = fields['model_type']
    check_sizes(fields, f'{where}: ')
    if fields['hidden_size'] % fields['num_attention_heads']:
        raise ValueError(
            f'{where}: n_v_heads={fields["num_attention_heads"]} must divide '
            f'd_model={fields["hidden_size"]}.'
        )
    text = part_config(where, fields, (family,))
    history = 'published:Llamba' if llamba else 'published:Phi-Mamba'
    config = with_mamba(text, [], mixer, history)
    model_class = HYBRIDS[family][2]
    special = [
        entry
        for i in config.mamba_layers
        for entry in _mixer_entries(
            f'backbone.layers.{i}.mixer.', f'model.layers.{i}.self_attn.', config
        )
    ]
    entries = entries_of(model_class, config, _published_name(family), special)
    if config.tie_word_embeddings:
        shape = (config.vocab_size, config.hidden_size)
        entries.append(Entry('lm_head.weight', shape, {}))
    return model_class, config, TableSource(open_folder(folder), entries, folder)


def _llamba(where: str, raw: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the decoder, and the mixer."""
    raw = given(raw)
    width, depth = (need(where, raw, name, int) for name in ('d_model', 'n_layer'))
    mlp = given(need(where, raw, 'mlp_cfg'))
    check_values(
        where,
        raw,
        dict(lm_head_bias=False, lm_head_prenorm='rms', norm_epsilon=_EPS)
        | dict(hidden_size=width, num_hidden_layers=depth),
    )
    check_values(f'{where}: mlp_cfg', mlp, dict(bias=False, act_fn='silu'))
    mixer, heads = _mixer(f'{where}: ssm_cfg', need(where, raw, 'ssm_cfg'))
    return dict(
        model_type='llama',
        vocab_size=_padded(where, raw),
        hidden_size=width,
        intermediate_size=need(f'{where}: mlp_cfg', mlp, 'intermediate_size', int),
        num_hidden_layers=depth,
        num_attention_heads=heads,
        hidden_act='silu',
        rms_norm_eps=_EPS,
        tie_word_embeddings=bool(raw.get('tie_embeddings', False)),
        bos_token_id=None,
        eos_token_id=None,
    ), mixer


def _phi_mamba(
    where: str, raw: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the decoder, and the mixer."""
    language, backbone = (
        given(need(f'{where}: {name}', need(where, raw, name), 'input'))
        for name in ('LanguageModel', 'MixerModel')
    )
    at = f'{where}: MixerModel.input'
    width, depth = (need(at, backbone, name, int) for name in ('d_model', 'n_layer'))
    check_values(at, backbone, dict(lm_head_prenorm='layer'))
    blocks = {n: value for n, value in given(raw).items() if n.startswith('Block')}
    found = []
    for name, block in blocks.items():
        kinds = dict(
            BlockType='modules.phi_block', CoreType='modules.mixers.discrete_mamba2'
        )
        need(where, blocks, name)
        check_values(f'{where}: {name}', given(block), kinds)
        need(f'{where}: {name}', block, 'n_layers', int)
        core = need(f'{where}: {name}', block, 'core_input')
        found.append(_mixer(f'{where}: {name}.core_input', core))
    if not found or any(other != found[0] for other in found):
        raise ValueError(
            f'{where}: {", ".join(blocks) or "no Block"}: the layers must have one '
            'core_input.'
        )
    layers = sum(block['n_layers'] for block in blocks.values())
    if layers != depth:
        raise ValueError(
            f'{at}: n_layer={depth}, but {", ".join(blocks)} have {layers} layers.'
        )
    mixer, heads = found[0]
    return dict(
        model_type='phi',
        vocab_size=_padded(f'{where}: LanguageModel.input', language),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        hidden_act='gelu_new',
        layer_norm_eps=_EPS,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    ), mixer


def _mixer(where: str, fields: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The mixer of published fields, and its number of heads."""
    fields = given(fields)
    heads, states = (
        need(where, fields, name, int) for name in ('n_v_heads', 'd_state')
    )
    taps = fields.get('d_conv', 4)
    check_values(
        where,
        fields,
        dict(n_qk_heads=heads, expand=1, bias=False, conv_bias=True)
        | dict(activation=tuple(_ACTIVATIONS)),
    )
    for name, value in (('n_v_heads', heads), ('d_state', states), ('d_conv', taps)):
        if type(value) is not int or value < 1:
            raise ValueError(
                f'{where}: {name}={value!r} must be a whole number, 1 at least.'
            )
    return dict(
        type='DiscreteMamba2',
        d_conv=taps,
        d_state=states,
        conv_activation=_ACTIVATIONS[fields.get('activation', 'identity')],
    ), heads


def _padded(where: str, fields: dict[str, Any]) -> int:
    """The number of embeddings, which is padded to a multiple."""
    words = need(where, fields, 'vocab_size', int)
    multiple = fields.get('pad_vocab_size_multiple', 8)
    if type(multiple) is not int or multiple < 1:
        raise ValueError(
            f'{where}: pad_vocab_size_multiple={multiple!r} must be a whole number, 1 '
            'at least.'
        )
    return -(-words // multiple) * multiple


def _mixer_entries(at: str, to: str, config: Any) -> list[Entry]:
    """The table of one layer's mixer, with the prefixes of names there and here."""
    width, heads = config.hidden_size, config.num_attention_heads
    keys, taps = heads * config.mixer['d_state'], config.mixer['d_conv']
    parts = dict(x_proj=width, B_proj=keys, C_proj=keys, z_proj=width, decay_proj=heads)

    def entry(
        name: str, ours: str, shape: tuple[int, ...], part: Part = whole
    ) -> Entry:
        return Entry(at + name, shape, {to + ours: part})

    return [
        rows(
            f'{at}in_proj.weight',
            {f'{to}{name}.weight': count for name, count in parts.items()},
            width,
        ),
        entry('z_bias', 'z_proj.bias', (width,)),
        entry('conv1d.weight', 'conv1d.weight', (width + 2 * keys, 1, taps)),
        entry('conv1d.bias', 'conv1d.bias', (width + 2 * keys,)),
        entry('D', 'D', (heads,), in_float32),
        entry('out_proj.weight', 'out_proj.weight', (width, width)),
    ]


def _published_name(family: str) -> Any:
    def name_of(name: str) -> str:
        for ours, theirs in (
            ('model.embed_tokens.', 'backbone.embedding.'),
            (_NORMS[family], 'backbone.final_layernorm.'),
            ('model.layers.', 'backbone.layers.'),
        ):
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        return name

    return name_of
