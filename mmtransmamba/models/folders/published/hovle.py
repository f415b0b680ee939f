"""The layouts of HoVLE and of mmMamba, which is derived from it.

Published folders: ``OpenGVLab/HoVLE``, ``hustvl/mmMamba-linear`` and
``hustvl/mmMamba_hybrid``. Source: hustvl/mmMamba, ``hovle/modeling_*.py``,
``convert_weight.py`` and ``src/model/linear_attention/mamba2.py``.

HoVLE shares the ``model_type`` ``internvl_chat`` with InternVL, which has a vision
encoder; only HoVLE has ``embedding_config``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from mmtransmamba.models.folders.config import check_sizes
from mmtransmamba.models.folders.published.fields import (
    check_values,
    file_in,
    given,
    need,
    with_mamba,
)
from mmtransmamba.models.folders.published.mamba_in_llama import UNUSED
from mmtransmamba.models.folders.published.weight_table import (
    Entry,
    Part,
    TableSource,
    entries_of,
    in_float32,
    padded_rows,
    rows,
    whole,
)
from mmtransmamba.models.folders.sources import TensorSource, open_folder
from mmtransmamba.models.multimodal.patch_decoder import (
    PatchDecoderForConditionalGeneration,
)
from mmtransmamba.models.multimodal.patch_decoder_config import PatchDecoderConfig

MIXER = dict(type='Mamba2', d_conv=2, norm='per_head', norm_eps=1e-5, skip=False)
"""The mixer here that computes mmMamba's layers."""
ENDS = (2, 92542)
"""``</s>`` and ``<|im_end|>`` of InternLM2's tokenizer."""
_SIZES = (
    *('hidden_size', 'intermediate_size', 'num_hidden_layers'),
    *('num_attention_heads', 'num_key_value_heads'),
)
_ARCHITECTURES = ('InternLM2ForCausalLM', 'mmMambaForCausalLM')
_SAME = ('hidden_size', 'intermediate_size', 'num_attention_heads')
_EMBEDDING, _HEAD = 'model.language_model.embed_tokens.weight', 'lm_head.weight'
_LAYERS = 'model.language_model.layers.'
# Published name of a layer's part, and ours.
_PARTS = {
    'attention_norm.': 'input_layernorm.',
    'ffn_norm.': 'post_attention_layernorm.',
    'feed_forward.w1.': 'mlp.gate_proj.',
    'feed_forward.w3.': 'mlp.up_proj.',
    'feed_forward.w2.': 'mlp.down_proj.',
    'attention.wo.': 'self_attn.o_proj.',
}
_PATCHES = {
    'vision_embeddings.patch_embedding.': 'projection.',
    'pixel_shuffle_proj.0.': 'mlp.0.',
    'pixel_shuffle_proj.2.': 'mlp.2.',
}


def is_hovle(raw: dict[str, Any]) -> bool:
    """Whether a ``config.json`` is HoVLE's or mmMamba's."""
    kind = raw.get('model_type')
    return kind == 'mmMamba_chat' or (
        kind == 'internvl_chat' and 'embedding_config' in raw
    )


def read_hovle(
    folder: str | Path, raw: dict[str, Any]
) -> tuple[type, Any, TensorSource]:
    """Class, config and tensors of a HoVLE or mmMamba folder.

    Args:
        folder: The folder.
        raw: Fields of its ``config.json``.

    Raises:
        CheckpointError: Tensors do not fit the config.
        ValueError: A field contradicts another, or cannot be read.
    """
    where, raw = file_in(folder), given(raw)
    embedding = given(need(where, raw, 'embedding_config'))
    language = given(need(where, raw, 'llm_config'))
    _check(where, raw, embedding, language)
    count = embedding['num_hidden_layers']
    text = _text_config(language, count + language['num_hidden_layers'])
    special = _special_tokens(where, embedding)
    text.vocab_size += special
    image = embedding.get('img_context_token_id', 92546)
    if image not in range(text.vocab_size):
        raise ValueError(
            f'{where}: embedding_config: img_context_token_id={image!r} must lie in '
            f'[0, {text.vocab_size - 1}], as the embeddings do.'
        )
    published_kinds = 'layers_block_type' in {**embedding, **language}
    if raw['model_type'] == 'mmMamba_chat' or published_kinds:
        kept = _attention_layers(where, embedding, 0)
        kept += _attention_layers(where, language, count)
        if len(kept) < text.num_hidden_layers:
            text = with_mamba(text, kept, MIXER, 'published:mmMamba')
    merged = round(1 / embedding.get('downsample_ratio', 0.5))
    ours, theirs = (_rope_of(_text_config(c, 1)) for c in (embedding, language))
    config = PatchDecoderConfig(
        text_config=text,
        num_holistic_layers=count,
        image_size=embedding.get('image_size', 224),
        patch_size=embedding.get('patch_size', 14) * merged,
        pixel_shuffle=merged,
        holistic_rope=None if ours == theirs else ours,
        image_token_id=image,
    )
    entries = _entries(config, language['vocab_size'], special)
    source = TableSource(open_folder(folder), entries, folder, UNUSED)
    return PatchDecoderForConditionalGeneration, config, source


def _check(
    where: str, raw: dict[str, Any], embedding: dict[str, Any], language: dict[str, Any]
) -> None:
    at = f'{where}: embedding_config'
    for part, fields in ((at, embedding), (f'{where}: llm_config', language)):
        for name in _SIZES:
            need(part, fields, name, int)
        check_sizes(fields, f'{part}: ')
        check_values(
            part, fields, dict(bias=False, attention_bias=False, hidden_act='silu')
        )
        scaling = fields.get('rope_scaling')
        kind = scaling.get('type') if isinstance(scaling, dict) else None
        if scaling is not None and kind not in ('dynamic', 'linear'):
            raise ValueError(
                f'{part}: rope_scaling={scaling!r} cannot be read; its type must be '
                "'dynamic' or 'linear'."
            )
    part = f'{where}: llm_config'
    # The holistic part has no head, so its own field is the default of all configs.
    check_values(part, language, dict(tie_word_embeddings=False))
    name = language.get('architectures') or _ARCHITECTURES[0]
    if isinstance(name, list):
        name = name[0]
    check_values(part, dict(architectures=name), dict(architectures=_ARCHITECTURES))
    words = need(part, language, 'vocab_size', int)
    same = {name: language[name] for name in (*_SAME, 'num_key_value_heads')}
    same |= dict(llm_vocab_size=words, llm_hidden_size=language['hidden_size'])
    same['rms_norm_eps'] = language.get('rms_norm_eps', 1e-5)
    check_values(at, {'rms_norm_eps': 1e-5} | embedding, same)
    check_values(
        at,
        embedding,
        dict(use_ls=False, pixel_shuffle_loc='pre', use_pixel_shuffle_proj=True)
        | dict(downsample_ratio=0.5, num_channels=3, use_2d_sincos_pos_embed=False),
    )
    size = embedding.get('image_size', 224)
    check_values(
        where,
        raw,
        dict(select_layer=-1, downsample_ratio=0.5, normalize_encoder_output=False)
        | dict(pad2square=False, force_image_size=(size, None)),
    )


def _text_config(fields: dict[str, Any], depth: int) -> LlamaConfig:
    """The decoder as a Llama; its stop tokens are set with the processor."""
    return LlamaConfig(
        **{name: fields[name] for name in _SIZES} | {'num_hidden_layers': depth},
        vocab_size=fields.get('vocab_size', 1),
        hidden_act='silu',
        rms_norm_eps=fields.get('rms_norm_eps', 1e-5),
        rope_theta=float(fields.get('rope_theta', 10000)),
        rope_scaling=fields.get('rope_scaling'),
        max_position_embeddings=fields.get('max_position_embeddings', 4096),
    )


def _rope_of(config: LlamaConfig) -> dict[str, Any]:
    return dict(
        rope_parameters=dict(config.rope_parameters),
        max_position_embeddings=config.max_position_embeddings,
    )


def _special_tokens(where: str, embedding: dict[str, Any]) -> int:
    """Number of tokens after the vocabulary that have embeddings, but no logits."""
    tokens = embedding.get('special_token_maps') or {}
    first = embedding.get('llm_vocab_size', 92553)
    if sorted(tokens.values()) != list(range(first, first + len(tokens))):
        raise ValueError(
            f'{where}: embedding_config: special_token_maps={tokens!r} must number its '
            f'tokens from llm_vocab_size={first} on.'
        )
    return len(tokens)


def _attention_layers(where: str, fields: dict[str, Any], shift: int) -> list[int]:
    kinds = need(where, fields, 'layers_block_type', list)
    wanted = fields['num_hidden_layers']
    if len(kinds) != wanted or not set(kinds) <= {'mamba2', 'mha'}:
        raise ValueError(
            f'{where}: layers_block_type={kinds!r} must name {wanted} layers, each '
            "'mamba2' or 'mha'."
        )
    return [shift + i for i, kind in enumerate(kinds) if kind == 'mha']


def _entries(config: PatchDecoderConfig, words: int, special: int) -> list[Entry]:
    text, count = config.text_config, config.num_holistic_layers
    width = text.hidden_size
    positions = config.image_seq_length * config.pixel_shuffle**2
    patches = 'model.patch_embedding.'
    at = 'embedding_model.'
    entries = [
        Entry(f'{at}vision_embeddings.class_embedding', (1, 1, width), {}),
        Entry(
            f'{at}vision_embeddings.position_embedding',
            (1, positions + 1, width),
            # The first is the class token's, which is not used.
            {f'{patches}position_embedding': lambda tensor: tensor[:, 1:]},
        ),
        Entry(f'{at}llm_text_embeddings.weight', (words, width), {_EMBEDDING: whole}),
        Entry(
            'language_model.output.weight',
            (words, width),
            {_HEAD: padded_rows(words + special)},
        ),
        # HoVLE's language model always receives embedded words.
        Entry('language_model.model.tok_embeddings.weight', (words, width), {}),
    ]
    if special:
        name = f'{at}special_text_embeddings.weight'
        entries.append(Entry(name, (special, width), {_EMBEDDING: whole}))
    for i in range(text.num_hidden_layers):
        layer = f'{at}encoder.{i}.attention.'
        if i >= count:
            layer = f'language_model.model.layers.{i - count}.attention.'
        own = f'{_LAYERS}{i}.self_attn.'
        if i in getattr(text, 'mamba_layers', ()):
            entries += _mamba_entries(layer, own, text)
        else:
            entries.append(_qkv_entry(layer, own, text))
    return entries_of(
        PatchDecoderForConditionalGeneration,
        config,
        lambda name: _published_name(name, count),
        entries,
    )


def _qkv_entry(at: str, to: str, text: Any) -> Entry:
    """For each key-value head, its query heads, the key and the value."""
    groups = text.num_key_value_heads
    served = text.num_attention_heads // groups
    total = (text.num_attention_heads + 2 * groups) * text.head_dim

    def part(first: int, last: int) -> Part:
        def take(tensor):
            heads = tensor.unflatten(0, (groups, served + 2, text.head_dim))
            return heads[:, first:last].flatten(0, 2)

        return take

    return Entry(
        f'{at}wqkv.weight',
        (total, text.hidden_size),
        {
            f'{to}q_proj.weight': part(0, served),
            f'{to}k_proj.weight': part(served, served + 1),
            f'{to}v_proj.weight': part(served + 1, served + 2),
        },
    )


def _mamba_entries(at: str, to: str, text: Any) -> list[Entry]:
    """The table of one Mamba-2 layer of mmMamba: rows v, k, q, gate, dt."""
    heads, size, hidden = text.num_attention_heads, text.head_dim, text.hidden_size
    inner, narrow = heads * size, text.num_key_value_heads * size
    channels = inner + 2 * narrow
    weights = dict(
        x_proj=narrow, B_proj=narrow, C_proj=inner, z_proj=inner, dt_proj=heads
    )
    return [
        rows(
            f'{at}wvkqgdt.weight',
            {f'{to}{name}.weight': count for name, count in weights.items()},
            hidden,
        ),
        Entry(
            f'{at}conv1d.weight',
            (channels, 1, MIXER['d_conv']),
            {f'{to}conv1d.weight': whole},
        ),
        Entry(f'{at}conv1d.bias', (channels,), {f'{to}conv1d.bias': whole}),
        Entry(f'{at}A_log_bias', (heads,), {f'{to}A_log': in_float32}),
        Entry(f'{at}dt_bias', (heads,), {f'{to}dt_bias': in_float32}),
        # One weight for all heads there.
        Entry(
            f'{at}g_norm_swish_gate.weight',
            (size,),
            {f'{to}norm.weight': lambda tensor: tensor.repeat(heads)},
        ),
        Entry(f'{at}o_proj.weight', (hidden, inner), {f'{to}out_proj.weight': whole}),
    ]


def _published_name(name: str, count: int) -> str:
    """The published name of a tensor that is only renamed."""
    if name.startswith(_LAYERS):
        number, _, rest = name.removeprefix(_LAYERS).partition('.')
        layer = int(number)
        at = f'embedding_model.encoder.{layer}.'
        if layer >= count:
            at = f'language_model.model.layers.{layer - count}.'
        return at + _renamed(rest, _PARTS)
    if name.startswith('model.patch_embedding.'):
        rest = name.removeprefix('model.patch_embedding.')
        return 'embedding_model.' + _renamed(rest, _PATCHES)
    return name.replace('model.language_model.', 'language_model.model.')


def _renamed(name: str, table: dict[str, str]) -> str:
    for published, own in table.items():
        if name.startswith(own):
            return published + name.removeprefix(own)
    return name
