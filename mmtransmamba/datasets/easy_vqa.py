"""The easy-VQA data set: one coloured shape, and simple questions."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from mmtransmamba.datasets.question_answers import Question, QuestionAnswers
from mmtransmamba.registry import DATASETS
from mmtransmamba.utils.array_files import open_arrays
from mmtransmamba.utils.images import open_image
from mmtransmamba.utils.text_files import read_json

SPLITS = ('train', 'test')
SHAPES = ('circle', 'rectangle', 'triangle')
COLOURS = ('black', 'blue', 'brown', 'gray', 'green', 'red', 'teal', 'yellow')


def category_of(answer: str) -> str:
    """``'yes/no'``, ``'shape'`` or ``'colour'``."""
    if answer in ('yes', 'no'):
        return 'yes/no'
    return 'shape' if answer in SHAPES else 'colour'


def read_questions(data_root: str | Path, split: str) -> list[Question]:
    """The questions of a split.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is not a list of question, answer and number of the picture.
    """
    path = Path(data_root) / f'{split}_questions.json'
    if not path.is_file():
        raise FileNotFoundError(f'easy-VQA: there is no file "{path}".')
    rows = read_json(path)
    try:
        return [
            Question(int(picture), question, answer, category_of(answer))
            for question, answer, picture in rows
        ]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'{path} must hold a list of [question, answer, number of the picture]; '
            f'{error}'
        ) from error


def words_of(data_root: str | Path) -> list[str]:
    """All words and marks of the training questions and answers, sorted."""
    texts = [
        text.lower()
        for each in read_questions(data_root, 'train')
        for text in (each.question, each.answer)
    ]
    return sorted({word for text in texts for word in re.findall(r'\w+|[^\w\s]', text)})


@DATASETS.register_module()
class EasyVQA(QuestionAnswers):
    """Pictures of one shape, with questions about its shape and colour.

    The folder has ``{train,test}_questions.json``, lists of question, answer and number
    of the picture, and ``{train,test}_images.npz`` with ``png`` (uint8, all files
    concatenated) and ``offsets`` (int64, N + 1). Source:
    https://github.com/vzhou842/easy-VQA.

    Args:
        data_root: The folder.
        processor: Folder of a transformers processor, or the object.
        split: ``'train'`` or ``'test'``.
        max_questions: Use only this many, spread evenly over the set; by default all.
        prompts: Return prompts to answer instead of samples to learn from.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The split is unknown, or a file cannot be used.
    """

    def __init__(
        self,
        data_root: str,
        processor: Any,
        split: str = 'train',
        max_questions: int | None = None,
        prompts: bool = False,
    ) -> None:
        super().__init__(processor, prompts)
        if split not in SPLITS:
            raise ValueError(f"split must be 'train' or 'test', got {split!r}")
        self.questions = read_questions(data_root, split)
        path = Path(data_root) / f'{split}_images.npz'
        if not path.is_file():
            raise FileNotFoundError(f'easy-VQA: there is no file "{path}".')
        with open_arrays(path) as shard:
            missing = {'png', 'offsets'} - set(shard.files)
            if missing:
                raise ValueError(f'{path} lacks {", ".join(sorted(missing))}.')
            self._bytes, self._offsets = shard['png'], shard['offsets']
        last = max(question.picture for question in self.questions)
        if last >= len(self._offsets) - 1:
            raise ValueError(
                f'{split}_questions.json asks about picture {last}; {path} has '
                f'{len(self._offsets) - 1}.'
            )
        if max_questions is not None and max_questions < len(self.questions):
            if max_questions < 1:
                raise ValueError(f'max_questions={max_questions} must be positive.')
            chosen = np.linspace(0, len(self.questions) - 1, max_questions)
            self.questions = [self.questions[i] for i in chosen.round().astype(int)]

    def picture(self, number: int) -> Image.Image:
        begin, end = self._offsets[number : number + 2]
        return open_image(self._bytes[begin:end].tobytes(), f'picture {number}')


@DATASETS.register_module()
class EasyVQAPatches(Dataset):
    """Training pictures with their shape and colour, to train a vision tower.

    Shape and colour are taken from the questions. About a third of the pictures is left
    out because the questions do not reveal both. Samples are ``pixel_values``
    ``[3, H, W]`` and ``labels`` ``[N]``, the same class for each patch.

    Args:
        data_root, processor: See :class:`EasyVQA`.
    """

    metainfo: dict = {}
    num_classes = len(COLOURS) * len(SHAPES)

    def __init__(self, data_root: str, processor: Any) -> None:
        self._vqa = EasyVQA(data_root, processor)
        known: dict[int, dict[str, str]] = {}
        for each in self._vqa.questions:
            known.setdefault(each.picture, {})[each.category] = each.answer
        self.classes = {
            picture: SHAPES.index(found['shape']) * len(COLOURS)
            + COLOURS.index(found['colour'])
            for picture, found in known.items()
            if {'shape', 'colour'} <= set(found)
        }
        self._pictures = list(self.classes)
        self._pixels: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        picture, processor = self._pictures[index], self._vqa.encoder.processor
        if picture not in self._pixels:
            pixels = processor.image_processor(
                self._vqa.picture(picture), return_tensors='pt'
            )
            self._pixels[picture] = pixels['pixel_values'][0]
        pixels = self._pixels[picture]
        patches = math.prod(side // processor.patch_size for side in pixels.shape[1:])
        labels = torch.full((patches,), self.classes[picture])
        return dict(pixel_values=pixels, labels=labels)
