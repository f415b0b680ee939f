"""Captions for a scene with a moving shape."""

from __future__ import annotations

import re

import numpy as np

from mmtransmamba.datasets.video_text.shapes_drawing import (
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Scene,
)
from mmtransmamba.datasets.video_text.tokenizers import WordTokenizer
from mmtransmamba.registry import TASK_UTILS

SIZE_WORDS = {'small': ('small', 'little', 'tiny'), 'large': ('large', 'big', 'huge')}
MOTION_WORDS = {
    'left': ('left', 'to the left', 'leftwards'),
    'right': ('right', 'to the right', 'rightwards'),
    'up': ('up', 'upwards'),
    'down': ('down', 'downwards'),
}
VERBS = ('moves', 'goes', 'slides', 'drifts', 'travels')
ROWS = ('top', 'middle', 'bottom')
COLUMNS = ('left', 'centre', 'right')
TEMPLATES = (
    'a {size} {colour} {shape} {verb} {motion} from the {place}',
    'the {size} {colour} {shape} at the {place} {verb} {motion}',
    'from the {place} a {colour} {shape} that is {size} {verb} {motion}',
    'starting at the {place} a {size} {colour} {shape} {verb} {motion}',
    'a {shape} {verb} {motion} from the {place} and it is {size} and {colour}',
)


def place_words(scene: Scene) -> str:
    """The start position of a scene's shape, such as ``top left`` or ``centre``."""
    row, column = ROWS[scene.row], COLUMNS[scene.column]
    if scene.column == 1:
        return 'centre' if scene.row == 1 else row
    return f'{row} {column}'


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """A caption that fully describes a scene, in words drawn from ``rng``."""
    caption = str(rng.choice(TEMPLATES)).format(
        size=rng.choice(SIZE_WORDS[scene.size]),
        colour=scene.colour,
        shape=scene.shape,
        verb=rng.choice(VERBS),
        motion=rng.choice(MOTION_WORDS[scene.motion]),
        place=place_words(scene),
    )
    return re.sub(r'\ba (?=[aeiou])', 'an ', caption)


def vocabulary() -> list[str]:
    """All words of the captions, sorted."""
    phrases = [re.sub(r'\{\w+\}', ' ', template) for template in TEMPLATES]
    phrases += ['an', *SHAPES, *COLOURS, *VERBS, *ROWS, *COLUMNS]
    phrases += [word for size in SIZES for word in SIZE_WORDS[size]]
    phrases += [word for motion in MOTIONS for word in MOTION_WORDS[motion]]
    return sorted({word for phrase in phrases for word in phrase.split()})


@TASK_UTILS.register_module()
class ShapesTokenizer(WordTokenizer):
    """One token per word of the captions of ``MovingShapes``; needs no download."""

    def __init__(self) -> None:
        super().__init__(vocabulary())
