"""Conversations with vision-language models."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmtransmamba.apis.vlm_loading import (
    choose_device,
    choose_dtype,
    load_chat_parts,
    load_model,
)
from mmtransmamba.apis.vlm_streaming import stream_text, until_stop
from mmtransmamba.datasets.conversations import (
    IMAGE,
    Conversation,
    ConversationEncoder,
    Turn,
    chat_template,
    collate_conversations,
)
from mmtransmamba.datasets.conversations.conversation import ImageSource
from mmtransmamba.models.folders.companions import Companions
from mmtransmamba.models.folders.hub import model_folder
from mmtransmamba.models.language import cast_parameters
from mmtransmamba.registry import MODELS

Images = ImageSource | Sequence[ImageSource] | None
"""The images of one prompt."""

MAX_NEW_TOKENS = 512
_SAMPLING = ('temperature', 'top_p', 'top_k')


class VisionLanguageChat:
    """A vision-language model that answers questions.

    Args:
        model: Folder of a transformers model with its processor, including hybrids of
            this package; if the folder does not exist, a name on Hugging Face's hub.
            Or a transformers model in memory.
        processor: The processor or its folder, if it is not in the model's folder.
        device: Device of the model; ``'auto'`` is the GPU if available.
        dtype: Such as ``'bfloat16'``; by default that of the folder. The SSM
            parameters of a hybrid are float32 in any case.
        head: Head or its config. It sets how text is generated, and which part of the
            text is the answer; by default all of at most 512 tokens, decoded greedily.
        template: Chat template, as a name in
            :data:`~mmtransmamba.datasets.conversations.templates.TEMPLATES` or as
            Jinja; by default that of the processor.
        template_variables, system, image_place: How conversations become prompts, see
            :class:`~mmtransmamba.datasets.conversations.ConversationEncoder`.

    Raises:
        FileNotFoundError: Neither the folder nor a model on the hub exists.
        CheckpointError: The folder's weights do not match its config.
        ValueError: The processor or chat template is missing, or the model is not a
            vision-language model.
    """

    def __init__(
        self,
        model: str | Path | nn.Module,
        processor: Any = None,
        device: str | torch.device = 'auto',
        dtype: str | torch.dtype | None = None,
        head: dict | nn.Module | None = None,
        template: str | None = None,
        template_variables: Mapping[str, Any] | None = None,
        system: str | None = None,
        image_place: str = 'as written',
    ) -> None:
        device, dtype = choose_device(device), choose_dtype(dtype)
        folder = None
        if not isinstance(model, nn.Module):
            folder = model_folder(model)
            model = load_model(folder)
        if processor is None or isinstance(processor, (str, Path)):
            given = folder if processor is None else model_folder(processor)
            processor = Companions(None if given is None else str(given)).processor
        if dtype is not None:
            cast_parameters(model, dtype)
        self.model = model.to(device).eval()
        self.processor = processor
        self.encoder = ConversationEncoder(
            processor,
            template,
            template_variables,
            system,
            max_length=None,
            image_place=image_place,
        )
        # Check now rather than at the first question.
        chat_template(processor, template, template_variables)
        self.head = _build_head(head)

    @classmethod
    def from_config(
        cls,
        config: Any,
        checkpoint: str | Path | None = None,
        head: dict | nn.Module | None = None,
        template: str | None = None,
        **kwargs: Any,
    ) -> VisionLanguageChat:
        """The model of a config, with weights from a checkpoint of its training.

        Args:
            config, checkpoint: See
                :func:`~mmtransmamba.apis.loading.load_trained`.
            head: By default the head of the config.
            template: By default that of the config's data, or the processor's.
            **kwargs: Other arguments of the class; those about prompts are by default
                the options of the config's data.
        """
        model, processor, own_head, prompts = load_chat_parts(config, checkpoint)
        if template is not None:
            prompts['template'] = template
        return cls(
            model,
            kwargs.pop('processor', None) or processor,
            head=own_head if head is None else head,
            **(prompts | kwargs),
        )

    def answer(
        self,
        prompts: Sequence[str | Conversation],
        images: Sequence[Images] | None = None,
        **generation: Any,
    ) -> list[str]:
        """Answers to a batch of questions.

        Args:
            prompts: Questions, or conversations that end with one. ``<image>`` in a
                question marks the place of an image; otherwise images come first.
            images: For each question an image (file, its content, or PIL image),
                several, or None. A conversation contains its own images.
            **generation: Settings of transformers' ``generate``, override the head's:
                ``max_new_tokens``, ``temperature`` (0 for greedy decoding), ….

        Returns:
            The answer that the head extracts from each text.

        Raises:
            BadSampleError: An image is missing or does not decode, or the numbers of
                images and of their placeholders differ.
        """
        texts = self.generate(prompts, images, **generation)
        return [self.head.answer_of(text) for text in texts]

    def generate(
        self,
        prompts: Sequence[str | Conversation],
        images: Sequence[Images] | None = None,
        **generation: Any,
    ) -> list[str]:
        """Complete texts generated by the model; see :meth:`answer`."""
        if isinstance(prompts, (str, Conversation)):
            raise TypeError('prompts has to be a list, also of a single question.')
        if images is not None and len(images) != len(prompts):
            raise ValueError(
                f'{len(prompts)} prompts need as many entries of images, got '
                f'{len(images)}; give several images of one prompt as a list.'
            )
        if not prompts:
            return []
        images = images or [None] * len(prompts)
        batch = self._batch(
            [conversation_of(p, i) for p, i in zip(prompts, images, strict=True)]
        )
        head = self._head(generation)
        texts = head.generate(self.model, self.processor, batch)
        return [until_stop(text, _stops(head)) for text in texts]

    def stream(
        self, prompt: str | Conversation, images: Images = None, **generation: Any
    ) -> Iterator[str]:
        """Pieces of the text that :meth:`generate` returns for one prompt, streamed.

        If the caller stops early, so does the generation.

        Args:
            prompt, images: One prompt and its images, see :meth:`answer`.
            **generation: See :meth:`answer`.
        """
        batch = self._batch([conversation_of(prompt, images)])
        head = self._head(generation)
        return stream_text(head, self.model, self.processor, batch, _stops(head))

    def _batch(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """Prompts padded on the left, on the model's device."""
        samples = [self.encoder.encode_prompt(each) for each in conversations]
        tokenizer = getattr(self.processor, 'tokenizer', self.processor)
        # The padding value does not matter, because padding is masked.
        batch = collate_conversations(samples, tokenizer.pad_token_id or 0, 'left')
        device, dtype = self.model.device, self.model.dtype
        return {
            key: value.to(device, dtype if value.is_floating_point() else None)
            for key, value in batch.items()
        }

    def _head(self, generation: dict[str, Any]) -> nn.Module:
        """The head with other generation settings."""
        if not generation:
            return self.head
        head = copy.copy(self.head)
        own = head.generation
        head.generation = own | sampling_settings(generation, own.get('temperature'))
        return head


def conversation_of(prompt: str | Conversation, images: Images = None) -> Conversation:
    """A conversation with one question, unless it already is a conversation.

    Args:
        prompt: A conversation, or a question with or without ``<image>``.
        images: Images of a question.

    Raises:
        ValueError: Images are given in addition to a conversation.
    """
    if isinstance(prompt, Conversation):
        if images is not None:
            raise ValueError('A conversation has its own images.')
        return prompt
    if images is None:
        images = []
    elif isinstance(images, (str, bytes)) or not isinstance(images, Sequence):
        images = [images]
    if IMAGE not in prompt:
        prompt = f'{IMAGE}\n' * len(images) + prompt
    return Conversation([Turn('user', prompt)], list(images))


def sampling_settings(
    generation: dict[str, Any], usual: float | None = None
) -> dict[str, Any]:
    """Settings of ``generate`` where the temperature alone selects the decoding.

    0 selects greedy decoding, other values sampling.

    Args:
        generation: Settings.
        usual: Temperature of sampling without one, 1 if not given either.
    """
    settings = dict(generation)
    temperature = settings.get('temperature')
    if temperature is not None:
        settings.setdefault('do_sample', temperature > 0)
    if settings.get('do_sample') is False:
        # Avoid warnings of transformers about unused settings.
        settings |= dict.fromkeys(_SAMPLING)
    elif settings.get('do_sample'):
        settings['temperature'] = (usual or 1.0) if temperature is None else temperature
    return settings


def _build_head(head: dict | nn.Module | None) -> nn.Module:
    if isinstance(head, nn.Module):
        return head
    default = dict(type='AnswerHead', max_new_tokens=MAX_NEW_TOKENS)
    with DefaultScope.overwrite_default_scope('mmtransmamba'):
        return MODELS.build(default if head is None else head)


def _stops(head: nn.Module) -> tuple[str, ...]:
    return tuple(getattr(head, 'stop_strings', ()))
