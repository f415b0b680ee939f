"""Associative recall of many pairs, and copying."""

from __future__ import annotations

from random import Random

from mmtransmamba.evaluation.language.generated.task import GeneratedTask, choose
from mmtransmamba.evaluation.language.generated.words import KEYS, VALUES
from mmtransmamba.evaluation.language.questions import Question

ANSWERED = 3
"""Queries with answers before the one that is asked."""


def mqar(rng: Random, pairs: int) -> Question:
    """Multi-query associative recall (Zoology, arXiv:2312.04927) in words.

    ``pairs`` lines ``key: value``, then keys again; the last one's value is asked.
    Wrong answers are values of other keys, as far as there are others.
    """
    keys = rng.sample(KEYS, pairs)
    values = rng.sample(VALUES, pairs)
    memory = dict(zip(keys, values, strict=True))
    *known, asked = rng.sample(keys, min(pairs, ANSWERED + 1))
    lines = [f'{key}: {memory[key]}' for key in (*keys, *known)]
    context = '\n'.join((*lines, f'{asked}:'))
    others = [value for value in values if value != memory[asked]]
    if len(others) < 3:
        others += rng.sample([v for v in VALUES if v not in values], 3 - len(others))
    return choose(rng, context, memory[asked], rng.sample(others, 3))


def copy(rng: Random, length: int) -> Question:
    """A list of words that is to be repeated.

    In wrong answers, one word is another one of the list's vocabulary.
    """
    words = [rng.choice(KEYS) for _ in range(length)]
    text = ' '.join(words)
    wrong: set[str] = set()
    while len(wrong) < 3:
        place = rng.randrange(length)
        other = rng.choice([word for word in KEYS if word != words[place]])
        wrong.add(' '.join((*words[:place], other, *words[place + 1 :])))
    context = f'List: {text}.\nThe same list again: {text}.\nThe same list again:'
    return choose(rng, context, text, sorted(wrong))


MQAR = GeneratedTask(mqar, (4, 8, 16, 32, 64), 'pairs', 0.25, most=len(KEYS))
COPY = GeneratedTask(copy, (4, 8, 16, 32, 64), 'words', 0.25)
