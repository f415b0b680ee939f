"""Samples of questions about pictures, with answers of a few words."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from mmtransmamba.datasets.conversations import IMAGE, Conversation, Turn
from mmtransmamba.datasets.conversations.encoder import ConversationEncoder

Sample = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A question about a picture.

    Attributes:
        picture: Number of the picture.
        question, answer: The words.
        category: Kind of the question.
    """

    picture: int
    question: str
    answer: str
    category: str


class QuestionAnswers(Dataset):
    """Base class of data sets that ask the same questions of many pictures.

    There are far fewer distinct questions than samples. Each question and each picture
    is encoded once, so an epoch after the first costs next to nothing.

    Samples are those of :func:`~mmtransmamba.datasets.conversations.encode`. With
    ``prompts``, they are those of
    :func:`~mmtransmamba.datasets.conversations.encode_prompt`, plus ``answer``,
    ``question_id`` and ``category``.

    A subclass sets ``questions`` and implements ``picture``.

    Args:
        processor: Folder of a transformers processor, or the object.
        prompts: Return prompts to answer instead of samples to learn from.
    """

    metainfo: dict = {}
    questions: list[Question]

    def __init__(self, processor: Any, prompts: bool = False) -> None:
        self.encoder = ConversationEncoder(processor)
        self.prompts = prompts
        self._texts: dict[tuple[str, str], Sample] = {}
        self._pixels: dict[int, torch.Tensor] = {}

    @abstractmethod
    def picture(self, number: int) -> Image.Image:
        """Picture number ``number``, RGB."""

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f'sample {index} of {len(self)}')
        asked = self.questions[index]
        pixels = self._pixels.get(asked.picture)
        text = self._texts.get((asked.question, asked.answer))
        if pixels is None or text is None:
            sample = self._encode(asked)
            pixels = sample.pop('pixel_values')
            self._pixels[asked.picture] = pixels
            self._texts[asked.question, asked.answer] = text = sample
        sample = dict(text, pixel_values=pixels)
        if self.prompts:
            sample.update(
                answer=asked.answer, question_id=str(index), category=asked.category
            )
        return sample

    def _encode(self, asked: Question) -> Sample:
        turns = [
            Turn('user', f'{IMAGE} {asked.question}'),
            Turn('assistant', asked.answer),
        ]
        conversation = Conversation(turns, [self.picture(asked.picture)])
        encode = self.encoder.encode_prompt if self.prompts else self.encoder.encode
        return encode(conversation)
