"""The encoding that all sets of conversations share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmtransmamba.datasets.conversations.conversation import Conversation, Turn
from mmtransmamba.datasets.conversations.encoding import Sample, encode, encode_prompt
from mmtransmamba.datasets.conversations.formats import image_first
from mmtransmamba.utils import processors


class ConversationEncoder:
    """Encode conversations with a processor, which is loaded on first use.

    Args:
        processor: Folder of a transformers processor, or of a tokenizer for text
            alone; or the object itself.
        template: Name of a chat template, or a Jinja template, instead of the
            folder's own.
        template_variables: Variables of the template besides the messages.
        system: System text for a conversation without a system turn.
        max_length: Maximum number of tokens in a sample.
        too_long: ``'cut'`` or ``'skip'``, see
            :func:`~mmtransmamba.datasets.conversations.encode`.
        image_place: Position of a turn's images: ``'as written'``, or ``'first'`` as in
            LLaVA-1.5's training code.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: ``too_long`` or ``image_place`` has another value.
    """

    def __init__(
        self,
        processor: Any,
        template: str | None = None,
        template_variables: Mapping[str, Any] | None = None,
        system: str | None = None,
        max_length: int | None = 2048,
        too_long: str = 'cut',
        image_place: str = 'as written',
    ) -> None:
        if isinstance(processor, str | Path) and not Path(processor).is_dir():
            raise FileNotFoundError(
                f'There is no folder "{processor}" with a processor or tokenizer.'
            )
        if too_long not in ('cut', 'skip'):
            raise ValueError(f"too_long must be 'cut' or 'skip', got {too_long!r}")
        if image_place not in ('as written', 'first'):
            raise ValueError(
                f"image_place must be 'as written' or 'first', got {image_place!r}"
            )
        self._given = processor
        self._processor: Any = None
        self.template = template
        self.template_variables = dict(template_variables or {})
        self.system = system
        self.max_length = max_length
        self.too_long = too_long
        self.image_place = image_place

    @property
    def processor(self) -> Any:
        """The processor or tokenizer."""
        if self._processor is None:
            self._processor = self._given
            if isinstance(self._given, str | Path):
                self._processor = load_processor(self._given)
        return self._processor

    def encode(self, conversation: Conversation) -> Sample:
        """Encode a sample to learn from.

        Raises:
            BadSampleError: The conversation cannot be used.
        """
        return encode(
            self.processor,
            self._prepared(conversation),
            template=self.template,
            max_length=self.max_length,
            too_long=self.too_long,
            template_variables=self.template_variables,
        )

    def encode_prompt(self, conversation: Conversation) -> Sample:
        """Encode a prompt to answer.

        Raises:
            BadSampleError: The conversation cannot be used.
        """
        return encode_prompt(
            self.processor,
            self._prepared(conversation),
            template=self.template,
            max_length=self.max_length,
            template_variables=self.template_variables,
        )

    def _prepared(self, conversation: Conversation) -> Conversation:
        if self.image_place == 'first':
            conversation = image_first(conversation)
        turns = conversation.turns
        if self.system is not None and turns and turns[0].role != 'system':
            turns = [Turn('system', self.system), *turns]
        return replace(conversation, turns=turns)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process loads the processor itself.
        return dict(self.__dict__, _processor=None)


def load_processor(folder: str | Path) -> Any:
    """The processor of a folder, or its tokenizer if it has no processor.

    Raises:
        ValueError: The folder has no tokenizer.
    """
    from transformers import PreTrainedTokenizerBase

    processor = processors.load_processor(folder)
    tokenizer = getattr(processor, 'tokenizer', processor)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ValueError(
            f'"{folder}" has a {type(processor).__name__} but no tokenizer; give the '
            'folder of a vision-language model, or of a tokenizer for text alone.'
        )
    return processor
