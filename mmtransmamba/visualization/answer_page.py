"""A page of pictures with questions and the answers of several models."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmtransmamba.visualization.contact_sheet import RIGHT, WRONG
from mmtransmamba.visualization.curves import _pyplot


@dataclass
class AnsweredQuestion:
    """A question about a picture, and its answers.

    Attributes:
        picture: uint8 ``[H, W, 3]``.
        question: The question.
        gold: The right answer.
        answers: By the model's name, its answer and whether it is right.
    """

    picture: np.ndarray
    question: str
    gold: str
    answers: Mapping[str, tuple[str, bool]]


def plot_answers(
    questions: Sequence[AnsweredQuestion], path: str | Path, columns: int = 3
) -> None:
    """Draw questions with their answers into a PNG; wrong answers are red and crossed.

    Args:
        questions: From left to right, row by row.
        path: The PNG to write.
        columns: Questions side by side.

    Raises:
        ValueError: There are no questions.
    """
    if not questions:
        raise ValueError('plot_answers: there is no question to draw.')
    pyplot = _pyplot()
    rows = -(-len(questions) // columns)
    lines = 3 + max(len(each.answers) for each in questions)
    figure, grid = pyplot.subplots(
        rows,
        2 * columns,
        figsize=(4.4 * columns, 0.27 * lines * rows + 0.2),
        squeeze=False,
        gridspec_kw=dict(width_ratios=[1, 1.6] * columns),
        layout='constrained',
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for place, each in enumerate(questions):
        row, column = divmod(place, columns)
        grid[row, 2 * column].imshow(each.picture, interpolation='nearest')
        _write(grid[row, 2 * column + 1], each, lines)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _write(axes, each: AnsweredQuestion, lines: int) -> None:
    wrapped = textwrap.wrap(each.question, 34)[:2]
    said = [(line, 'black', 'bold') for line in wrapped]
    said.append((f'gold: {each.gold}', 'black', 'normal'))
    for name, (answer, right) in each.answers.items():
        mark, colour = ('✓', RIGHT) if right else ('✗', WRONG)
        said.append((f'{mark} {name}: {answer or "(empty)"}', colour, 'normal'))
    for i, (text, colour, weight) in enumerate(said):
        found = axes.text(
            0,
            1 - (i + 0.5) / lines,
            text,
            transform=axes.transAxes,
            color=colour,
            weight=weight,
            size=8,
            va='center',
        )
        found.set_in_layout(False)  # otherwise a long text widens its column
