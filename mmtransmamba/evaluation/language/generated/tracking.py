"""State tracking: parity, and composition of permutations."""

from __future__ import annotations

from random import Random

from mmtransmamba.evaluation.language.generated.task import GeneratedTask, choose
from mmtransmamba.evaluation.language.questions import Question

EXAMPLES = 4
CUPS = 'ABCDE'


def parity(rng: Random, length: int) -> Question:
    """Whether a list of bits has an even or odd number of ones, after four examples."""
    lines, answers = [], []
    for _ in range(EXAMPLES + 1):
        bits = [rng.randrange(2) for _ in range(length)]
        lines.append(f'Bits: {" ".join(map(str, bits))}. The number of ones is')
        answers.append('odd' if sum(bits) % 2 else 'even')
    shown = [
        f'{line} {answer}.' for line, answer in zip(lines, answers[:-1], strict=False)
    ]
    context = '\n'.join((*shown, lines[-1]))
    other = 'even' if answers[-1] == 'odd' else 'odd'
    return choose(rng, context, answers[-1], [other])


def permutation(rng: Random, swaps: int) -> Question:
    """The place of a ball under one of five cups after swaps of two cups each.

    Composition of permutations of five elements needs a depth that grows with their
    number, or a state (arXiv:2404.08819). Two examples are in front.
    """
    blocks = []
    for _ in range(3):
        place = start = rng.choice(CUPS)
        moves = []
        for _ in range(swaps):
            one, two = rng.sample(CUPS, 2)
            moves.append(f'Swap {one} and {two}.')
            place = {one: two, two: one}.get(place, place)
        text = f'The ball is under cup {start}. {" ".join(moves)} Now it is under cup'
        blocks.append((text, place))
    *shown, (asked, right) = blocks
    context = '\n'.join((*(f'{text} {place}.' for text, place in shown), asked))
    return choose(rng, context, right, [cup for cup in CUPS if cup != right])


_LENGTHS = (2, 4, 8, 16, 32)
PARITY = GeneratedTask(parity, _LENGTHS, 'bits', 0.5)
PERMUTATION = GeneratedTask(permutation, _LENGTHS, 'swaps', 1 / len(CUPS))
