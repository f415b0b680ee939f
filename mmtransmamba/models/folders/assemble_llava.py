"""Assembly of a LLaVA from a vision tower and a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SiglipVisionModel,
)
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from mmtransmamba.models.folders.config import read_model_config
from mmtransmamba.models.folders.encoder import TEXT_HALF
from mmtransmamba.models.folders.lm import load_lm
from mmtransmamba.models.folders.loading import load_folder
from mmtransmamba.models.generation import repair_generation_config
from mmtransmamba.models.language import cast_parameters
from mmtransmamba.models.multimodal.llava import (
    HybridLlavaConfig,
    HybridLlavaForConditionalGeneration,
)
from mmtransmamba.models.vision.families import (
    HybridCLIPVisionModel,
    HybridSiglipVisionModel,
)
from mmtransmamba.utils.chat_templates import (
    LLAVA_V1,
    check_chat_template,
    with_image_token,
)
from mmtransmamba.utils.processors import load_tokenizer

# Class, whether the first token is not a patch, and the tokens that LLaVA (CLIP) and
# TinyLLaVA (SigLIP, which has no class token) use.
_TOWERS = {
    'clip': (CLIPVisionModel, True, 'default'),
    'clip_vision_model': (CLIPVisionModel, True, 'default'),
    'siglip': (SiglipVisionModel, False, 'full'),
    'siglip_vision_model': (SiglipVisionModel, False, 'full'),
    'hybrid_clip_vision_model': (HybridCLIPVisionModel, True, 'default'),
    'hybrid_siglip_vision_model': (HybridSiglipVisionModel, False, 'full'),
}
FEATURE_LAYER = -2
"""Layer whose output LLaVA and TinyLLaVA take."""


def assemble_llava(
    vision: str | Path,
    language: str | Path | nn.Module,
    tokenizer: str | Path | None = None,
    image_token: str = '<image>',
    feature_layer: int = FEATURE_LAYER,
    chat_template: str | None = None,
    seed: int = 0,
) -> tuple[nn.Module, LlavaProcessor]:
    """Assemble a LLaVA with a randomly initialised projector.

    CLIP provides the patch tokens of its second-to-last layer, SigLIP all tokens of
    that layer. The projector has two layers with a GELU between them, initialised like
    PyTorch's linear layers. The vision tower is cast to the language model's dtype.

    Args:
        vision: Folder of a CLIP or SigLIP, or of its vision tower, possibly a hybrid of
            this package.
        language: Folder of a causal language model, possibly a hybrid of this package,
            or the model, whose parts then become the new model's.
        tokenizer: Folder of the tokenizer, by default ``language``.
        image_token: Token that stands for an image; added to tokenizer and embeddings
            if they do not have it.
        feature_layer: Layer of the vision tower, negative from the end.
        chat_template: Jinja template of conversations. By default the tokenizer's own
            if it supports images, else that of LLaVA-1.5.
        seed: Seed of the projector.

    Returns:
        The model, a transformers LLaVA if the language model is a Transformer without
        bias in its head, and its processor.

    Raises:
        FileNotFoundError: A folder does not exist.
        CheckpointError: A folder's weights do not fit its config.
        ValueError: The chat template does not parse, the vision tower is of another
            kind or has no such layer, the language model is not a causal language
            model, or there is no tokenizer.
    """
    if chat_template is not None:
        check_chat_template(chat_template)
    tower, class_token, strategy = _load_tower(vision)
    depth = tower.config.num_hidden_layers
    if not -depth - 1 <= feature_layer <= depth:
        raise ValueError(
            f'feature_layer={feature_layer} must lie in [{-depth - 1}, {depth}]: the '
            f'vision tower in {vision} has {depth} layers.'
        )
    if isinstance(language, nn.Module):
        lm, source = language, tokenizer or language.name_or_path
    else:
        lm, source = load_lm(language), tokenizer or language
    words = load_tokenizer(source)
    image_id = _add_image_token(words, lm, image_token)
    vision_config, text_config = tower.config, lm.config
    config = dict(
        vision_config=vision_config,
        text_config=text_config,
        image_token_index=image_id,
        image_seq_length=(vision_config.image_size // vision_config.patch_size) ** 2,
        vision_feature_layer=feature_layer,
        vision_feature_select_strategy=strategy,
    )
    text_config.transfer_history = [
        *(getattr(text_config, 'transfer_history', None) or []),
        'init:llava',
    ]
    model = _build(config, tower, lm, seed)
    if words.pad_token is None:
        words.pad_token = words.eos_token
    model.generation_config.pad_token_id = words.pad_token_id
    repair_generation_config(model)
    processor = LlavaProcessor(
        image_processor=AutoImageProcessor.from_pretrained(
            str(vision), local_files_only=True
        ),
        tokenizer=words,
        patch_size=vision_config.patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(class_token),
        image_token=image_token,
        chat_template=chat_template or _template_of(words, image_token),
    )
    return model, processor


def _load_tower(folder: str | Path) -> tuple[nn.Module, bool, str]:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'No folder of a vision tower at {folder}.')
    read_model_config(folder)
    config = AutoConfig.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    if config.model_type not in _TOWERS:
        raise ValueError(
            f'The vision tower in {folder} is a {config.model_type!r}; it must be one '
            f'of {", ".join(_TOWERS)}.'
        )
    tower_class, class_token, strategy = _TOWERS[config.model_type]
    tower = load_folder(tower_class, folder, lambda name: name.startswith(TEXT_HALF))
    return tower, class_token, strategy


def _add_image_token(tokenizer: Any, lm: nn.Module, image_token: str) -> int:
    """The image token's id, with an embedding added if necessary."""
    if image_token not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({'extra_special_tokens': [image_token]})
    number = tokenizer.convert_tokens_to_ids(image_token)
    rows = lm.get_input_embeddings().num_embeddings
    if number >= rows:
        lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        # The row is never read, because image features replace it; but a random one in
        # the head could be the most likely token.
        for layer in (lm.get_input_embeddings(), lm.get_output_embeddings()):
            for tensor in (layer.weight, getattr(layer, 'bias', None)):
                if tensor is not None:
                    tensor.data[rows:] = tensor.data[:rows].float().mean(0)
    return number


def _build(
    fields: dict[str, Any], tower: nn.Module, lm: nn.Module, seed: int
) -> nn.Module:
    """The model from given parts; only the projector is randomly initialised."""
    head = lm.get_output_embeddings()
    if hasattr(lm.config, 'mamba_layers') or head.bias is not None:
        model_class = HybridLlavaForConditionalGeneration
        config = HybridLlavaConfig(lm_head_bias=head.bias is not None, **fields)
    else:
        model_class, config = LlavaForConditionalGeneration, LlavaConfig(**fields)
    for part in (config.vision_config, config.text_config):
        part._name_or_path = ''  # it would be saved
    with torch.device('meta'):
        model = model_class(config)
    dtype = lm.get_input_embeddings().weight.dtype
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.model.multi_modal_projector = LlavaMultiModalProjector(config).to(dtype)
    model.model.vision_tower = cast_parameters(tower, dtype)
    model.model.language_model = lm.get_decoder()
    model.lm_head = head
    model.config.dtype = dtype
    model.tie_weights()
    model.generation_config = lm.generation_config
    return model.eval()


def _template_of(tokenizer: Any, image_token: str) -> str:
    own = tokenizer.chat_template
    if isinstance(own, str) and 'image' in own:
        return own
    return with_image_token(LLAVA_V1, image_token)
