"""Assembly of a decoder-only vision-language model from a language model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, CLIPImageProcessor

from mmtransmamba.models.folders.assemble import assemble
from mmtransmamba.models.folders.config import read_model_config
from mmtransmamba.models.folders.generation_settings import generation_config_of
from mmtransmamba.models.folders.lm import read_lm
from mmtransmamba.models.folders.sources import TensorSource
from mmtransmamba.models.generation import repair_generation_config
from mmtransmamba.models.language import ATTENTION, HYBRIDS
from mmtransmamba.models.multimodal.patch_decoder import (
    PatchDecoderForConditionalGeneration,
    PatchEmbedding,
)
from mmtransmamba.models.multimodal.patch_decoder_config import PatchDecoderConfig
from mmtransmamba.models.multimodal.patch_decoder_processor import (
    PatchDecoderProcessor,
)
from mmtransmamba.utils.chat_templates import (
    LLAVA_V1,
    check_chat_template,
    with_image_token,
)
from mmtransmamba.utils.processors import load_tokenizer

IMAGE_TOKEN = '<image>'
_LAYERS = 'model.layers.'
_DECODER = 'model.language_model.'
# Stored in older folders, although they are computed from the config.
_COMPUTED = 'rotary_emb.inv_freq'
# Fields of a config that do not affect its layers.
_NOT_OF_LAYERS = (
    'num_hidden_layers vocab_size layer_types max_window_layers bos_token_id '
    'eos_token_id pad_token_id architectures transformers_version dtype '
    '_name_or_path tie_word_embeddings use_cache initializer_range '
    'max_position_embeddings transfer_history'
).split()


def assemble_patch_decoder(
    language: nn.Module | str | Path,
    image_token_id: int | None = None,
    holistic: int | Sequence[int] | nn.Module | str | Path = 8,
    image_size: int = 448,
    patch_size: int = 28,
    seed: int = 0,
) -> nn.Module:
    """Add image patches and holistic layers before a language model, as in HoVLE.

    The result is a Transformer that has not learned images yet. It reads and writes
    text like the language model only after its holistic layers have been trained;
    HoVLE trains them first, with the language model frozen.

    Args:
        language: A causal language model of one of the families in
            :data:`~mmtransmamba.models.language.HYBRIDS`, or its folder. An
            InternLM2-style folder, whose ``wqkv`` are split, is treated as Llama's. All
            of its tensors are used.
        image_token_id: Token that marks the place of a patch. By default a new one
            after the vocabulary. Tokens that the vocabulary lacks get the mean of all
            its rows.
        holistic: Initialisation of the holistic layers: a number of new layers, the
            indices of layers of the language model to copy, or another language model
            of the same widths, or its folder, all of whose layers are used.
        image_size, patch_size: Sides in pixels, see :class:`PatchDecoderConfig`.
        seed: Seed of the patch embedding and of new layers.

    Returns:
        The model, in the language model's dtype.

    Raises:
        FileNotFoundError: The folder does not exist.
        CheckpointError: A tensor is missing, not part of the model or of another shape.
        ValueError: The family, a layer or the image token does not fit.
    """
    text, source = read_lm(language)
    _check_language(text, language)
    fresh = isinstance(holistic, int)
    layers, owner = source, text
    if fresh:
        if holistic < 0:
            raise ValueError(f'holistic={holistic} must not be negative.')
        chosen = list(range(holistic))
    elif isinstance(holistic, nn.Module | str | Path):
        owner, layers = read_lm(holistic)
        _check_same_layers(text, owner)
        chosen = list(range(owner.num_hidden_layers))
    else:
        chosen = list(holistic)
        if not set(chosen) <= set(range(text.num_hidden_layers)):
            raise ValueError(
                f'holistic={chosen} must name layers in '
                f'[0, {text.num_hidden_layers - 1}].'
            )
    kinds = getattr(owner, 'layer_types', None)
    kinds = [ATTENTION if fresh or not kinds else kinds[i] for i in chosen]
    if image_token_id is None:
        image_token_id = text.vocab_size
    config = PatchDecoderConfig(
        text_config=_deeper(text, kinds, image_token_id),
        num_holistic_layers=len(chosen),
        image_size=image_size,
        patch_size=patch_size,
        image_token_id=image_token_id,
        lm_head_bias='lm_head.bias' in source,
    )
    dtype = source['model.embed_tokens.weight'].dtype
    tensors = dict(_language_tensors(source, config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tensors |= _new_patch_embedding(config)
        tensors |= _new_layers(config) if fresh else _copied_layers(layers, chosen)
    model = assemble(
        PatchDecoderForConditionalGeneration,
        config,
        ((name, tensor.to('cpu', dtype).clone()) for name, tensor in tensors.items()),
    )
    given = generation_config_of(language)
    if given is not None:
        model.generation_config = given
    # Generated text contains no images.
    suppressed = model.generation_config.suppress_tokens or []
    model.generation_config.suppress_tokens = [*suppressed, image_token_id]
    repair_generation_config(model)
    return model


def write_patch_decoder(
    language: str | Path,
    folder: str | Path,
    chat_template: str | None = None,
    max_tiles: int = 1,
    **settings: Any,
) -> Path:
    """Write a new model and its processor into a folder ``from_pretrained`` can read.

    Args:
        language: Folder of a causal language model with its tokenizer. If the tokenizer
            has no token ``<image>``, it gets one.
        folder: Folder to create.
        chat_template: The processor's, in which an image is ``<image>``; by default the
            tokenizer's, or LLaVA-1.5's if it has none.
        max_tiles: Maximum number of tiles of an image, see
            :class:`~mmtransmamba.models.multimodal.PatchDecoderProcessor`.
        **settings: Other arguments of :func:`assemble_patch_decoder`.

    Raises:
        FileExistsError: The folder exists.
        ValueError: The tokenizer cannot be read, the template does not parse, or see
            :func:`assemble_patch_decoder`.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f'{folder} exists; give another folder.')
    if chat_template is not None:
        check_chat_template(chat_template)
    read_model_config(language)
    tokenizer = load_tokenizer(language)
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_special_tokens(dict(additional_special_tokens=[IMAGE_TOKEN]))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    model = assemble_patch_decoder(language, token, **settings)
    config = model.config
    sides = dict(height=config.image_size, width=config.image_size)
    processor = PatchDecoderProcessor(
        # Images are not cropped, because answers at their margins would be lost.
        image_processor=CLIPImageProcessor(size=sides, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=config.patch_size,
        max_tiles=max_tiles,
        chat_template=chat_template
        or tokenizer.chat_template
        or with_image_token(LLAVA_V1, IMAGE_TOKEN),
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _check_language(config: Any, language: nn.Module | str | Path) -> None:
    if config.model_type not in HYBRIDS:
        place = '' if isinstance(language, nn.Module) else f' in {language}'
        raise ValueError(
            f'The language model{place} is a {config.model_type!r}; it must be one of '
            f'{", ".join(HYBRIDS)} or InternLM2. A hybrid is made of the whole '
            'vision-language model.'
        )


def _check_same_layers(text: Any, other: Any) -> None:
    """Check config fields that matter even if tensor shapes agree."""
    ours, theirs = (
        {k: v for k, v in config.to_dict().items() if k not in _NOT_OF_LAYERS}
        for config in (text, other)
    )
    names = [k for k in ours | theirs if ours.get(k) != theirs.get(k)]
    if names:
        raise ValueError(
            "The holistic layers' model differs from the language model in "
            + ', '.join(f'{k} ({theirs.get(k)!r}, not {ours.get(k)!r})' for k in names)
            + '.'
        )


def _deeper(text: Any, kinds: list[str], image_token_id: int) -> Any:
    """The language model's config with layers of some kinds in front."""
    fields = copy.deepcopy(text.to_dict())
    for name in ('model_type', 'architectures', 'transformers_version', 'dtype'):
        fields.pop(name, None)
    if fields.get('layer_types'):
        fields['layer_types'] = kinds + fields['layer_types']
    fields['num_hidden_layers'] = text.num_hidden_layers + len(kinds)
    fields['vocab_size'] = max(text.vocab_size, image_token_id + 1)
    return type(text)(**fields)


def _language_tensors(
    source: TensorSource, config: PatchDecoderConfig
) -> Iterator[tuple[str, Tensor]]:
    text, shift = config.text_config, config.num_holistic_layers
    for name in source:
        if name.endswith(_COMPUTED) or (
            name == 'lm_head.weight' and text.tie_word_embeddings
        ):
            continue
        tensor = source[name]
        if name.startswith(('lm_head.', 'model.embed_tokens.')):
            tensor = _with_rows(tensor, text.vocab_size)
        if name.startswith(_LAYERS):
            number, _, rest = name.removeprefix(_LAYERS).partition('.')
            name = f'{_LAYERS}{int(number) + shift}.{rest}'
        yield _own_name(name), tensor


def _own_name(name: str) -> str:
    if name.startswith('model.'):
        return _DECODER + name.removeprefix('model.')
    return name


def _with_rows(tensor: Tensor, rows: int) -> Tensor:
    """The tensor with a number of rows, new ones being the mean of the others."""
    new = rows - tensor.shape[0]
    if new <= 0:
        return tensor
    mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
    return torch.cat((tensor, mean.expand(new, *tensor.shape[1:])))


def _new_patch_embedding(config: PatchDecoderConfig) -> dict[str, Tensor]:
    embedding = PatchEmbedding(config)
    std = config.text_config.initializer_range
    nn.init.normal_(embedding.projection.weight, std=std)
    nn.init.zeros_(embedding.projection.bias)
    nn.init.normal_(embedding.position_embedding, std=std)
    return {f'model.patch_embedding.{k}': v for k, v in embedding.state_dict().items()}


def _new_layers(config: PatchDecoderConfig) -> dict[str, Tensor]:
    """Holistic layers with transformers' initialisation of the family."""
    count = config.num_holistic_layers
    if not count:
        return {}
    fields = config.text_config.to_dict()
    kinds = fields.get('layer_types')
    # The vocabulary is minimal, as no words are needed, and so no special tokens.
    tokens = dict.fromkeys(('bos_token_id', 'eos_token_id', 'pad_token_id'))
    fields |= dict(num_hidden_layers=count, vocab_size=1, **tokens)
    if kinds:
        fields['layer_types'] = kinds[:count]
    fields.pop('dtype', None)
    small = AutoModel.from_config(AutoConfig.for_model(**fields), dtype=torch.float32)
    state = small.state_dict()
    return {_DECODER + k: v for k, v in state.items() if k.startswith('layers.')}


def _copied_layers(source: TensorSource, chosen: Sequence[int]) -> dict[str, Tensor]:
    tensors = {}
    for target, number in enumerate(chosen):
        prefix = f'{_LAYERS}{number}.'
        for name in source:
            if name.startswith(prefix) and not name.endswith(_COMPUTED):
                rest = name.removeprefix(prefix)
                tensors[f'{_DECODER}layers.{target}.{rest}'] = source[name]
    return tensors
