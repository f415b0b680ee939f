"""Refusal of tokens that a language model does not know."""

from __future__ import annotations

from torch import Tensor, nn


class TokenCheck:
    """Checks the token ids of batches before a GPU fails with a mere assertion.

    On a GPU that means to wait for it, so only the first batch is checked there.
    """

    def __init__(self) -> None:
        self._done = False

    def __call__(self, model: nn.Module, input_ids: Tensor) -> None:
        """Check a batch.

        Args:
            model: A transformers model.
            input_ids: ``[B, L]``.

        Raises:
            ValueError: There is an id beyond the vocabulary.
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
        self._done = True
