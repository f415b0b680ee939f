"""Questions about generated pictures of coloured shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from mmtransmamba.datasets.question_answers import Question, QuestionAnswers
from mmtransmamba.datasets.shapes_vqa.questions import (
    CATEGORIES,
    choose,
    questions_of,
)
from mmtransmamba.datasets.shapes_vqa.scenes import (
    COLOUR_NAMES,
    SHAPE_NAMES,
    Scene,
    draw,
    random_scene,
    split_of,
)
from mmtransmamba.registry import DATASETS

SPLITS = ('train', 'test')
# Every scene has questions of these categories.
ALWAYS = {'colour', 'shape', 'count', 'exists'}
# Independent streams of random numbers from one seed.
_SCENES, _DRAWING, _QUESTIONS = range(3)


def scenes_of(split: str, count: int, seed: int) -> list[Scene]:
    """The first scenes of a split; a smaller count is a prefix of a larger one.

    Raises:
        ValueError: The split is unknown, or ``count`` is not positive.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    if count < 1:
        raise ValueError(f'num_scenes={count} must be positive.')
    rng = np.random.default_rng([seed, _SCENES, SPLITS.index(split)])
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = random_scene(rng)
        if split_of(scene) == split:
            scenes.append(scene)
    return scenes


def draw_numbered(
    scenes: list[Scene], number: int, split: str, side: int, seed: int
) -> Image.Image:
    """The picture of a scene of a split."""
    rng = np.random.default_rng([seed, _DRAWING, SPLITS.index(split), number])
    return draw(scenes[number], rng, side)


@DATASETS.register_module()
class ShapesVQA(QuestionAnswers):
    """Coloured shapes, and questions about colour, shape, place, number and the like.

    Needs no download. The content of a scene decides whether it is for training or
    testing, so no test question is about a scene seen in training. The categories
    alternate; within each, the answers are balanced as far as the scenes allow.
    Everything depends only on the arguments.

    Args:
        processor: Folder of a transformers processor, or the object; see
            :func:`~mmtransmamba.datasets.shapes_vqa.write_start`.
        split: ``'train'`` or ``'test'``.
        num_scenes: Number of pictures. A smaller set is a prefix of a larger one.
        questions_per_scene: Questions per picture.
        categories: Kinds of questions, see
            :data:`~mmtransmamba.datasets.shapes_vqa.CATEGORIES`.
        img_size: Side of the pictures.
        seed: Seed of everything except the split.
        prompts: Return prompts to answer instead of samples to learn from.
    """

    def __init__(
        self,
        processor: Any,
        split: str = 'train',
        num_scenes: int = 1000,
        questions_per_scene: int = 1,
        categories: Sequence[str] = CATEGORIES,
        img_size: int = 36,
        seed: int = 0,
        prompts: bool = False,
    ) -> None:
        super().__init__(processor, prompts)
        if questions_per_scene < 1:
            raise ValueError(
                f'questions_per_scene={questions_per_scene} must be positive.'
            )
        unknown = set(categories) - set(CATEGORIES)
        if unknown or not set(categories) & ALWAYS:
            raise ValueError(
                f'categories={list(categories)} must be of {", ".join(CATEGORIES)}, '
                f'and one of {", ".join(sorted(ALWAYS))} among them: not every scene '
                'has questions of the others.'
            )
        self.split = split
        self.img_size = img_size
        self.seed = seed
        self.scenes = scenes_of(split, num_scenes, seed)
        self.questions = []
        turn = 0
        for i, scene in enumerate(self.scenes):
            rng = np.random.default_rng([seed, _QUESTIONS, SPLITS.index(split), i])
            possible = questions_of(scene)
            asked = 0
            while asked < questions_per_scene:
                category = categories[turn % len(categories)]
                turn += 1
                if category in possible:
                    asked += 1
                    question, answer = choose(possible, category, rng)
                    self.questions.append(Question(i, question, answer, category))

    def picture(self, number: int) -> Image.Image:
        return draw_numbered(self.scenes, number, self.split, self.img_size, self.seed)


@DATASETS.register_module()
class ShapesCells(Dataset):
    """The same pictures with the content of each cell, to train a vision tower.

    Samples are ``pixel_values`` ``[3, H, W]`` and ``labels`` ``[9]``, row by row: 0 for
    an empty cell, else a colour and a shape.

    Args:
        processor, split, num_scenes, img_size, seed: See :class:`ShapesVQA`.
    """

    metainfo: dict = {}
    num_classes = 1 + len(COLOUR_NAMES) * len(SHAPE_NAMES)

    def __init__(
        self,
        processor: Any,
        split: str = 'train',
        num_scenes: int = 1000,
        img_size: int = 36,
        seed: int = 0,
    ) -> None:
        questions = ShapesVQA(
            processor, split, num_scenes, img_size=img_size, seed=seed
        )
        self._vqa = questions
        self._pixels: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._vqa.scenes)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f'sample {index} of {len(self)}')
        if index not in self._pixels:
            images = self._vqa.encoder.processor.image_processor
            pixels = images(self._vqa.picture(index), return_tensors='pt')
            self._pixels[index] = pixels['pixel_values'][0]
        labels = torch.zeros(9, dtype=torch.long)
        for figure in self._vqa.scenes[index]:
            labels[3 * figure.row + figure.column] = (
                1
                + len(SHAPE_NAMES) * COLOUR_NAMES.index(figure.colour)
                + SHAPE_NAMES.index(figure.shape)
            )
        return dict(pixel_values=self._pixels[index], labels=labels)
