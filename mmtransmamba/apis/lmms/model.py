"""A vision-language model with the interface of lmms-eval.

Imported by lmms-eval alone; otherwise lmms-eval need not be installed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch
from lmms_eval.api.model import lmms
from tqdm import tqdm
from transformers import GenerationConfig

from mmtransmamba.apis.vlm import VisionLanguageChat
from mmtransmamba.datasets.conversations import IMAGE, Conversation, Turn
from mmtransmamba.models.multimodal.heads import AnswerHead

HEADS = {'answer': 'AnswerHead', 'reasoning': 'ReasoningHead'}
_MAX_NEW_TOKENS = 1024
# Default stop string of lmms-eval for tasks that set none. It separates the examples in
# a prompt, but only paragraphs in the answer of a chat model.
_DEFAULT_END = '\n\n'


class MMTransMamba(lmms):
    """A model of :class:`~mmtransmamba.apis.VisionLanguageChat`.

    The arguments are those of ``--model_args``.

    Args:
        pretrained: Folder of a model or its name on the hub; or a config.
        checkpoint: Weights of the config.
        device, dtype, template, processor: See
            :class:`~mmtransmamba.apis.VisionLanguageChat`. With several processes, each
            uses the GPU of its rank.
        head: ``'answer'``, or ``'reasoning'``: responses up to the length limit of the
            head, whose conclusion is the answer.
        batch_size: Questions answered at once.
        max_batch_size: Not used; lmms-eval passes it.

    Raises:
        ValueError: An argument is not accepted.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        checkpoint: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        head: str | None = None,
        template: str | None = None,
        processor: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ValueError(f'batch_size must be a number, got {batch_size!r}.')
        if head is not None and head not in HEADS:
            raise ValueError(f'head must be one of {list(HEADS)}, got {head!r}.')
        self.batch_size = int(batch_size)
        self._rank = int(os.environ.get('RANK', 0))
        self._world_size = int(os.environ.get('WORLD_SIZE', 1))
        if self._world_size > 1 and torch.cuda.is_available():
            device = f'cuda:{os.environ.get("LOCAL_RANK", 0)}'
        options = dict(
            processor=processor,
            device=device or 'auto',
            dtype=dtype,
            head=None if head is None else dict(type=HEADS[head]),
            template=template,
        )
        if checkpoint is None:
            self.chat = VisionLanguageChat(pretrained, **options)
        else:
            self.chat = VisionLanguageChat.from_config(
                pretrained, checkpoint, **options
            )
        self._device = self.chat.model.device

    @property
    def device(self) -> torch.device:
        """Device of the model; lmms-eval gathers the answers of all processes there."""
        return self._device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers to requests of lmms-eval.

        Requests with the same settings are answered in batches.
        """
        answers: list[str] = [''] * len(requests)
        with tqdm(total=len(requests), desc='answering', disable=self.rank != 0) as bar:
            for numbers in self._batches(requests):
                batch = [requests[n].args for n in numbers]
                settings = self._settings(batch[0][2] or {})
                talks = [
                    to_conversation(to_messages(self.task_dict[task][split][doc]))
                    for _, to_messages, _, doc, task, split in batch
                ]
                texts = self.chat.answer(talks, **settings)
                for n, args, text in zip(numbers, batch, texts, strict=True):
                    answers[n] = self._cut(text, args[2] or {})
                    self.cache_hook.add_partial(
                        'generate_until', (args[0], args[2]), answers[n]
                    )
                bar.update(len(batch))
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> NoReturn:
        self._refuse('has no log-likelihoods (loglikelihood, multiple_choice)')

    def generate_until_multi_round(self, requests: Sequence[Any]) -> NoReturn:
        self._refuse('does not answer in rounds (generate_until_multi_round)')

    def clean(self) -> None:
        """Free the memory; lmms-eval calls this when it has all answers."""
        self.chat = None
        super().clean()

    def _refuse(self, what: str) -> NoReturn:
        raise NotImplementedError(
            f'The model mmtransmamba {what}; choose tasks whose output_type is '
            'generate_until.'
        )

    def _batches(self, requests: Sequence[Any]) -> Iterator[list[int]]:
        """Indices of requests with the same settings."""
        groups: dict[str, list[int]] = {}
        for n, request in enumerate(requests):
            key = json.dumps(request.args[2], sort_keys=True, default=str)
            groups.setdefault(key, []).append(n)
        for numbers in groups.values():
            for start in range(0, len(numbers), self.batch_size):
                yield numbers[start : start + self.batch_size]

    @property
    def _has_plain_head(self) -> bool:
        return type(self.chat.head) is AnswerHead

    def _settings(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Settings of transformers' ``generate`` for those of a task."""
        known = GenerationConfig()
        settings = {k: v for k, v in asked.items() if hasattr(known, k)}
        settings.setdefault('temperature', 0)
        if not self._has_plain_head:
            settings.pop('max_new_tokens', None)
            return settings
        settings.setdefault(
            'max_new_tokens', asked.get('max_gen_toks', _MAX_NEW_TOKENS)
        )
        ends = _ends(asked)
        if ends:
            tokenizer = getattr(self.chat.processor, 'tokenizer', self.chat.processor)
            settings |= dict(stop_strings=ends, tokenizer=tokenizer)
        return settings

    def _cut(self, text: str, asked: dict[str, Any]) -> str:
        """The text before the first stop string of a task."""
        if self._has_plain_head:
            for end in _ends(asked):
                text = text.partition(end)[0]
        return text


def _ends(asked: dict[str, Any]) -> list[str]:
    ends = asked.get('until') or []
    ends = [ends] if isinstance(ends, str) else ends
    return [end for end in ends if end and end != _DEFAULT_END]


def to_conversation(messages: Sequence[dict[str, Any]]) -> Conversation:
    """Turns and images of messages in the format of lmms-eval.

    Args:
        messages: Each with ``role`` and ``content``: text, or parts of the types
            ``text`` and ``image`` (whose ``url`` is a PIL image or a file).

    Raises:
        ValueError: A message contains a video or sound.
    """
    turns, images = [], []
    for message in messages:
        content, text = message['content'], ''
        if isinstance(content, str):
            content = [dict(type='text', text=content)]
        for part in content:
            if part['type'] == 'image':
                images.append(part['url'])
                text += f'{IMAGE}\n'
            elif part['type'] == 'text':
                # Some tasks leave their own placeholder in the text.
                text += part['text'].replace(IMAGE, '')
            else:
                raise ValueError(
                    'The model mmtransmamba takes images and text, but a task has '
                    f'content of the type {part["type"]!r}.'
                )
        turns.append(Turn(message['role'], text))
    return Conversation(turns, images)
