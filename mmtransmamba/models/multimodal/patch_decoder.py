"""A vision-language model without vision encoder: one decoder for patches and text."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from mmtransmamba.models.language.arguments import known_arguments
from mmtransmamba.models.language.cache_names import (
    CACHE,
    as_argument,
    either_name,
    returned_cache,
)
from mmtransmamba.models.language.hybrid import HybridCausalLMMixin
from mmtransmamba.models.language.mixers.attention_mixer import AttentionMixer
from mmtransmamba.models.language.registration import register_model
from mmtransmamba.models.multimodal.patch_decoder_config import PatchDecoderConfig
from mmtransmamba.models.multimodal.patch_decoder_processor import (
    PatchDecoderProcessor,
)
from mmtransmamba.models.pos_embed import resize_pos_embed


class PatchEmbedding(nn.Module):
    """Patches of an image as tokens: a convolution and learned positions.

    With ``pixel_shuffle`` each token is made of several of these by an MLP.

    Args:
        config: Config of the model.
    """

    def __init__(self, config: PatchDecoderConfig) -> None:
        super().__init__()
        width, merged = config.text_config.hidden_size, config.pixel_shuffle or 1
        size = config.patch_size // merged
        self.patch_size = config.patch_size
        self.merged = merged
        self.grid = tuple(side * merged for side in config.grid)
        self.projection = nn.Conv2d(
            config.num_channels, width, kernel_size=size, stride=size
        )
        self.position_embedding = nn.Parameter(
            torch.zeros(1, self.grid[0] * self.grid[1], width)
        )
        self.mlp = None
        if config.pixel_shuffle:
            self.mlp = nn.Sequential(
                nn.Linear(merged**2 * width, width), nn.GELU(), nn.Linear(width, width)
            )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Tokens ``[N, P, C]`` of images ``[N, 3, H, W]``, row by row.

        Positions are resampled for images of another size than the config's.

        Raises:
            ValueError: Height or width is not a multiple of the patch size.
        """
        if any(side % self.patch_size for side in pixel_values.shape[-2:]):
            raise ValueError(
                f'pixel_values {list(pixel_values.shape)}: height and width must be '
                f'multiples of patch_size={self.patch_size}.'
            )
        maps = self.projection(pixel_values.to(self.projection.weight.dtype))
        positions = resize_pos_embed(
            self.position_embedding, self.grid, tuple(maps.shape[-2:])
        )
        tokens = maps.flatten(2).transpose(1, 2) + positions
        if self.mlp is None:
            return tokens
        rows, columns = (side // self.merged for side in maps.shape[-2:])
        # [N, rows, merged, columns, merged, C]
        tokens = tokens.unflatten(1, (rows, self.merged, columns, self.merged))
        return self.mlp(tokens.transpose(2, 3).flatten(3).flatten(1, 2))


class HolisticRotaryEmbedding(LlamaRotaryEmbedding):
    """Rotary positions of the holistic layers, which differ from the decoder's.

    Args:
        config: Config of the decoder with the rotary fields of these layers.
    """

    def give_to(self, attention: nn.Module) -> None:
        """Make an attention module use these rotary positions."""
        # First, so that a layer's own hook may take the rotation away.
        attention.register_forward_pre_hook(
            self._replace, with_kwargs=True, prepend=True
        )

    def _replace(
        self, module: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        given = kwargs.get('position_embeddings')
        if given is None:
            return args, kwargs
        positions = kwargs['position_ids']
        return args, kwargs | {'position_embeddings': self(given[0], positions)}


class PatchDecoderPreTrainedModel(PreTrainedModel):
    """Attributes that transformers requires of these models."""

    config: PatchDecoderConfig
    config_class = PatchDecoderConfig
    base_model_prefix = 'model'
    input_modalities = ('image', 'text')
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = [CACHE]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PatchEmbedding):
            std = self.config.get_text_config().initializer_range
            init.normal_(module.position_embedding, std=std)


class PatchDecoderModel(PatchDecoderPreTrainedModel):
    """The model without head: see :class:`PatchDecoderForConditionalGeneration`."""

    def __init__(self, config: PatchDecoderConfig) -> None:
        super().__init__(config)
        self.patch_embedding = PatchEmbedding(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.holistic_rotary = None
        if config.holistic_rope is not None:
            self._separate_rope(config)
        self.post_init()

    def _separate_rope(self, config: PatchDecoderConfig) -> None:
        text = copy.deepcopy(config.text_config)
        for name, value in config.holistic_rope.items():
            setattr(text, name, value)
        self.holistic_rotary = HolisticRotaryEmbedding(config=text)
        for layer in self.language_model.layers[: config.num_holistic_layers]:
            self.holistic_rotary.give_to(layer.self_attn)
            for module in layer.self_attn.modules():
                if isinstance(module, AttentionMixer):
                    module.rotary_config = text

    @either_name
    @known_arguments('use_cache', 'seq_idx')
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | dict[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The decoder's hidden states.

        Args:
            input_ids: ``[B, L]``, with one ``image_token_id`` for every patch.
            pixel_values: ``[N, 3, H, W]``, in the order of their tokens.
            attention_mask: ``[B, L]`` (tokens of the cache in front), 0 for padding, or
                the masks that ``generate`` creates for compiled decoding.
            position_ids: ``[B, L]``.
            cache: Cache of all layers, also by its older name ``past_key_values``.
            inputs_embeds: ``[B, L, C]`` in place of ``input_ids``.
            **kwargs: Further arguments of the decoder.

        Raises:
            ValueError: Image tokens and patches differ in number, or there are images
                but no tokens that mark their places.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError('Give either input_ids or inputs_embeds.')
        if pixel_values is not None:
            if input_ids is None:
                raise ValueError('pixel_values need input_ids, which say their places.')
            inputs_embeds = self.embed(input_ids, pixel_values)
        elif inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        return self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **as_argument(cache),
            **kwargs,
        )

    def embed(self, input_ids: Tensor, pixel_values: Tensor) -> Tensor:
        """Tokens and patches in one sequence ``[B, L, C]``."""
        embeds = self.get_input_embeddings()(input_ids)
        patches = self.patch_embedding(pixel_values).flatten(0, 1).to(embeds)
        places = input_ids == self.config.image_token_id
        # Reading the count back would prevent the graph from being compiled.
        if not torch.compiler.is_compiling() and int(places.sum()) != len(patches):
            raise ValueError(
                f'input_ids have {int(places.sum())} image tokens '
                f'(image_token_id={self.config.image_token_id}), but pixel_values '
                f'{list(pixel_values.shape)} make {len(patches)} patches.'
            )
        return embeds.masked_scatter(places[..., None], patches)


class PatchDecoderForConditionalGeneration(
    HybridCausalLMMixin, PatchDecoderPreTrainedModel, GenerationMixin
):
    """A decoder that reads image patches and text, and writes text.

    Based on HoVLE (arXiv:2412.16158), the teacher of mmMamba (arXiv:2502.13145).
    Patches are embedded by one convolution and inserted among the embedded words.
    Causal layers, the *holistic embedding*, map both into one space; a language model
    follows. Here both are one stack of layers, ``get_decoder().layers``, any of which
    can be Mamba.

    Modules are named as in transformers' LLaVA where it has the same ones.
    """

    _tied_weights_keys = {'lm_head.weight': 'model.language_model.embed_tokens.weight'}

    def __init__(self, config: PatchDecoderConfig) -> None:
        super().__init__(config)
        text = config.text_config
        self.model = PatchDecoderModel(config)
        self.lm_head = nn.Linear(
            text.hidden_size, text.vocab_size, bias=config.lm_head_bias
        )
        self.post_init()

    @property
    def holistic_layers(self) -> nn.ModuleList:
        """The layers that map patches and words into one space."""
        return self.get_decoder().layers[: self.config.num_holistic_layers]

    def get_output_embeddings(self) -> nn.Linear:
        """The head."""
        return self.lm_head

    @either_name
    @known_arguments('use_cache', 'seq_idx')
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | dict[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next tokens; see :meth:`PatchDecoderModel.forward`.

        Args:
            labels: ``[B, L]`` for ``loss``, -100 where a token is not predicted.
            logits_to_keep: Number of positions from the end whose logits are returned,
                or their indices; 0 for all.
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **as_argument(cache),
            **kwargs,
        )
        kept = logits_to_keep
        if isinstance(kept, int):
            kept = slice(-kept, None)
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.text_config.vocab_size,
                **kwargs,
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **as_argument(returned_cache(outputs)),
        )

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Repeat prompts for beams, each with all of its images in order."""
        if pixel_values is not None and expand_size > 1 and input_ids is not None:
            rows, columns = (
                side // self.config.patch_size for side in pixel_values.shape[-2:]
            )
            tokens = (input_ids == self.config.image_token_id).sum(-1)
            counts = (tokens // (rows * columns)).tolist()
            if sum(counts) == len(pixel_values):  # otherwise forward raises the error
                pixel_values = torch.cat(
                    [
                        images.repeat(expand_size, 1, 1, 1)
                        for images in pixel_values.split(counts)
                    ]
                )
        input_ids, kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size,
            is_encoder_decoder=is_encoder_decoder,
            input_ids=input_ids,
            **kwargs,
        )
        if pixel_values is not None:
            kwargs['pixel_values'] = pixel_values
        return input_ids, kwargs


AutoConfig.register(PatchDecoderConfig.model_type, PatchDecoderConfig)
register_model(AutoModel, PatchDecoderConfig, PatchDecoderModel)
register_model(
    AutoModelForImageTextToText,
    PatchDecoderConfig,
    PatchDecoderForConditionalGeneration,
)
AutoProcessor.register(PatchDecoderConfig, PatchDecoderProcessor)
