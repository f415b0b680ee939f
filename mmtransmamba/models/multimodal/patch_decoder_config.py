"""Config of a decoder that reads image patches besides text."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig

# Registers the hybrids with AutoConfig, for text_config.
import mmtransmamba.models.language  # noqa: F401


class PatchDecoderConfig(PretrainedConfig):
    """Config of :class:`~.patch_decoder.PatchDecoderForConditionalGeneration`.

    Attributes:
        text_config: Config of the decoder, one of transformers' or of this package's
            hybrids; its layers are the holistic embedding and the language model.
        num_holistic_layers: How many of its layers, from the first, are the holistic
            embedding; HoVLE has 8 before the 24 of its language model.
        image_size: Side in pixels of the images, or of the tiles of an image, for which
            there are position embeddings.
        patch_size: Side in pixels of a patch. HoVLE gives 256 tokens to a tile, to
            which 28 belongs with tiles of 448.
        pixel_shuffle: 0 for one convolution that makes a token of a patch. Else, as in
            the released HoVLE, how many smaller patches lie along the side of a patch:
            the convolution makes a token of each, with a position of its own, and a
            two-layer MLP makes one token of theirs.
        holistic_rope: Rotary positions of the holistic layers where they differ from
            those of the language model: ``rope_parameters`` and
            ``max_position_embeddings``, as in ``text_config``.
        num_channels: Channels of the images.
        image_token_id: Token that marks the place of a patch.
        lm_head_bias: Whether the head has a bias, as in Phi.
    """

    model_type = 'patch_decoder'
    sub_configs = {'text_config': AutoConfig}

    text_config: dict | PretrainedConfig | None = None
    num_holistic_layers: int = 8
    image_size: int = 448
    patch_size: int = 28
    pixel_shuffle: int = 0
    holistic_rope: dict | None = None
    num_channels: int = 3
    image_token_id: int = 32000
    lm_head_bias: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        text = self.text_config
        if text is None:
            text = dict(model_type='llama', vocab_size=self.image_token_id + 1)
        if isinstance(text, dict):
            fields = dict(text)
            text = AutoConfig.for_model(fields.pop('model_type', 'llama'), **fields)
        self.text_config = text
        # transformers reads this from the whole model's config.
        self.tie_word_embeddings = bool(text.tie_word_embeddings)
        super().__post_init__(**kwargs)
        if self.image_size % self.patch_size:
            raise ValueError(
                f'image_size={self.image_size} is not a multiple of '
                f'patch_size={self.patch_size}.'
            )
        if self.pixel_shuffle < 0 or self.patch_size % (self.pixel_shuffle or 1):
            raise ValueError(
                f'pixel_shuffle={self.pixel_shuffle} must be 0 or divide '
                f'patch_size={self.patch_size}.'
            )
        if not 0 <= self.num_holistic_layers < text.num_hidden_layers:
            raise ValueError(
                f'num_holistic_layers={self.num_holistic_layers} must lie in '
                f'[0, {text.num_hidden_layers - 1}]: the decoder has '
                f'{text.num_hidden_layers} layers.'
            )
        if not 0 <= self.image_token_id < text.vocab_size:
            raise ValueError(
                f'image_token_id={self.image_token_id} must lie in '
                f'[0, {text.vocab_size - 1}]: the vocabulary has {text.vocab_size} '
                'tokens.'
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches that have a position embedding."""
        side = self.image_size // self.patch_size
        return side, side

    @property
    def image_seq_length(self) -> int:
        """Tokens of an image of ``image_size``."""
        return self.grid[0] * self.grid[1]
