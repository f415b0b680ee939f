"""The questions about a scene, and their answers."""

from __future__ import annotations

import re
from collections import Counter
from itertools import permutations

import numpy as np

from mmtransmamba.datasets.shapes_vqa.scenes import (
    COLOUR_NAMES,
    COLUMNS,
    MAX_FIGURES,
    ROWS,
    SHAPE_NAMES,
    Scene,
)

CATEGORIES = ('colour', 'shape', 'place', 'count', 'exists', 'relation')
RELATIONS = {
    'left of': ('column', -1),
    'right of': ('column', 1),
    'above': ('row', -1),
    'below': ('row', 1),
}
"""Coordinate, and the sign of its difference."""

Questions = dict[str, dict[str, list[str]]]
"""Questions by category and answer."""


def questions_of(scene: Scene) -> Questions:
    """All questions that have exactly one answer in a scene."""
    found: Questions = {}

    def add(category: str, question: str, answer: str) -> None:
        found.setdefault(category, {}).setdefault(answer, []).append(question)

    shapes = Counter(figure.shape for figure in scene)
    colours = Counter(figure.colour for figure in scene)
    names = Counter(figure.name for figure in scene)
    for figure in scene:
        add('colour', f'What colour is the shape at {figure.place}?', figure.colour)
        add('shape', f'What shape is at {figure.place}?', figure.shape)
        if shapes[figure.shape] == 1:
            add('colour', f'What colour is the {figure.shape}?', figure.colour)
        if colours[figure.colour] == 1:
            add('shape', f'What shape is {figure.colour}?', figure.shape)
        if names[figure.name] == 1:
            add('place', f'Where is the {figure.name}?', figure.place)
    add('count', 'How many shapes are there?', str(len(scene)))
    for kind, counts in ((SHAPE_NAMES, shapes), (COLOUR_NAMES, colours)):
        for name in kind:
            add('count', f'How many {name} shapes are there?', str(counts[name]))
    for colour in COLOUR_NAMES:
        for shape in SHAPE_NAMES:
            name = f'{colour} {shape}'
            add('exists', f'Is there a {name}?', 'yes' if names[name] else 'no')
    named_once = [figure for figure in scene if names[figure.name] == 1]
    for one, other in permutations(named_once, 2):
        for words, (coordinate, sign) in RELATIONS.items():
            difference = getattr(one, coordinate) - getattr(other, coordinate)
            if difference:
                question = f'Is the {one.name} {words} the {other.name}?'
                add('relation', question, 'yes' if difference * sign > 0 else 'no')
    return found


def choose(
    questions: Questions, category: str, rng: np.random.Generator
) -> tuple[str, str]:
    """A question of a category and its answer.

    Every answer that the scene allows has the same probability, and then every question
    with this answer. Numbers are also weighted, because few scenes allow the high ones.
    """
    answers = sorted(questions[category])
    weights = np.array([_COUNT_WEIGHTS.get(answer, 1.0) for answer in answers])
    answer = answers[rng.choice(len(answers), p=weights / weights.sum())]
    asked = questions[category][answer]
    return asked[rng.integers(len(asked))], answer


_COUNT_WEIGHTS = {'0': 0.3, '1': 0.6, '2': 1.5, '3': 3.0, '4': 3.0}


def words() -> list[str]:
    """All words and marks of questions and answers, sorted, in lower case."""
    texts = [
        'What colour is the shape at What shape is Where is the How many shapes',
        'are there Is there a ?',
        *RELATIONS,
        *(*ROWS, *COLUMNS, *SHAPE_NAMES, *COLOUR_NAMES, 'yes', 'no'),
        *map(str, range(MAX_FIGURES + 1)),
    ]
    return sorted({word.lower() for text in texts for word in re.split(' ', text)})
