"""A fact hidden in a long text."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from mmtransmamba.evaluation.language.generated.task import GeneratedTask, choose
from mmtransmamba.evaluation.language.generated.words import CITIES
from mmtransmamba.evaluation.language.questions import Question

FILLER = (
    'The grass is green.',
    'The sky is blue.',
    'The sun is warm.',
    'Here we go.',
    'There and back again.',
)
NEEDLES = 4


def passkey(rng: Random, words: int) -> Question:
    """A number of five digits in a text of repeated sentences, at a random place."""
    right, *wrong = _numbers(rng, 4)
    needle = f'The pass key is {right}. Remember it. {right} is the pass key.'
    text = _hide(rng, words, [needle])
    context = (
        'There is a pass key in the text. Find it and remember it.\n'
        f'{text}\nWhat is the pass key? The pass key is'
    )
    return choose(rng, context, right, wrong)


def needle(rng: Random, words: int) -> Question:
    """One of four numbers in such a text, asked by the city that it belongs to.

    The wrong answers are the numbers of the other cities.
    """
    cities = rng.sample(CITIES, NEEDLES)
    numbers = _numbers(rng, NEEDLES)
    needles = [
        f'The number of {city} is {number}.'
        for city, number in zip(cities, numbers, strict=True)
    ]
    text = _hide(rng, words, needles)
    asked = rng.randrange(NEEDLES)
    context = (
        'Numbers of cities are hidden in the text. Remember them.\n'
        f'{text}\nWhat is the number of {cities[asked]}? '
        f'The number of {cities[asked]} is'
    )
    wrong = numbers[:asked] + numbers[asked + 1 :]
    return choose(rng, context, numbers[asked], wrong)


def _numbers(rng: Random, count: int) -> list[str]:
    return [str(number) for number in rng.sample(range(10000, 100000), count)]


def _hide(rng: Random, words: int, needles: Sequence[str]) -> str:
    """At least so many words of filler, with needles between its sentences."""
    sentences, count = [], 0
    while count < words:
        sentences.append(FILLER[len(sentences) % len(FILLER)])
        count += len(sentences[-1].split())
    for text in needles:
        sentences.insert(rng.randint(0, len(sentences)), text)
    return ' '.join(sentences)


_LENGTHS = (64, 128, 256, 512, 1024)
PASSKEY = GeneratedTask(passkey, _LENGTHS, 'words', 0.25)
NEEDLE = GeneratedTask(needle, _LENGTHS, 'words', 0.25)
