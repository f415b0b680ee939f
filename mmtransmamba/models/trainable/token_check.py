"""Refusal of unknown tokens, and of image tokens without images."""

from __future__ import annotations

from torch import Tensor, nn


class TokenCheck:
    """Checks the token ids of batches before a GPU fails with a mere assertion.

    Reading values makes the CPU wait for the GPU, so only the first batch is checked
    there.
    """

    def __init__(self) -> None:
        self._done = False

    def __call__(
        self, model: nn.Module, input_ids: Tensor, pixel_values: Tensor | None = None
    ) -> None:
        """Check a batch.

        Args:
            model: A transformers model.
            input_ids: ``[B, L]``.
            pixel_values: The batch's images, if it has any.

        Raises:
            ValueError: An id exceeds the vocabulary, or there are image tokens without
                images, which the model would read as words.
        """
        if input_ids.is_meta or (self._done and input_ids.is_cuda):
            return
        count = model.config.get_text_config().vocab_size
        lowest, highest = (int(value) for value in input_ids.aminmax())
        if lowest < 0 or highest >= count:
            unknown = lowest if lowest < 0 else highest
            raise ValueError(
                f'The batch has the token id {unknown}; {type(model).__name__} knows '
                f'the ids 0 to {count - 1}. The tokens must come from its tokenizer.'
            )
        image = getattr(model.config, 'image_token_id', None)
        if image is not None and pixel_values is None and (input_ids == image).any():
            raise ValueError(
                f'The batch has image tokens (id {image}), but no "pixel_values" '
                '[N, 3, H, W]: give the images that belong there.'
            )
        self._done = True
