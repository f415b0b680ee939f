"""Pictures of shapes, with questions that require reasoning about them.

The task is small enough that a model of a few hundred thousand parameters learns the
format and the questions on a CPU. The files have LLaVA-CoT's format, so the same code
reads both.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmtransmamba.datasets.video_text.shapes_drawing import COLOURS, SHAPES
from mmtransmamba.utils.reasoning_text import join_sections

COLOUR_NAMES = ('red', 'green', 'blue')
SHAPE_NAMES = ('circle', 'square')
KINDS = ('count', 'compare')
_THINGS = [(colour, shape) for colour in COLOUR_NAMES for shape in SHAPE_NAMES]
_BACKGROUND = 20


@dataclass(frozen=True)
class Picture:
    """Shapes in a square grid.

    Attributes:
        cells: Row by row, colour and shape, or None for an empty cell.
    """

    cells: tuple[tuple[str, str] | None, ...]

    @classmethod
    def numbered(cls, number: int, cells: int) -> Picture:
        """One of the ``7 ** cells`` pictures."""
        found = []
        for _ in range(cells):
            number, thing = divmod(number, len(_THINGS) + 1)
            found.append(_THINGS[thing - 1] if thing else None)
        return cls(tuple(found))

    def draw(self, side: int) -> Image.Image:
        """Draw an RGB image of ``side`` x ``side`` pixels."""
        rows = round(len(self.cells) ** 0.5)
        size = side // rows
        axis = (np.arange(size) + 0.5 - size / 2) / (0.4 * size)
        y, x = np.meshgrid(axis, axis, indexing='ij')
        canvas = np.full((side, side, 3), _BACKGROUND, np.uint8)
        for i, thing in enumerate(self.cells):
            if thing is not None:
                top, left = size * (i // rows), size * (i % rows)
                cell = canvas[top : top + size, left : left + size]
                cell[SHAPES[thing[1]](x, y) < 0] = COLOURS[thing[0]]
        return Image.fromarray(canvas)

    def ask(self, kind: str, colour: str, other: str) -> tuple[str, str]:
        """A question about one or two colours, and the response to it.

        Args:
            kind: ``'count'``, whose answer is a number, or ``'compare'``, whose answer
                is the letter of an option.
            colour, other: The colours.
        """
        names = [' '.join(thing) if thing else 'nothing' for thing in self.cells]
        caption = f'{", ".join(names)}.'
        count = self._count(colour)
        if kind == 'count':
            question = f'How many {colour} shapes are there?'
            plan, answer = f'I count the {colour} shapes.', str(count)
            thought = f'{self._counting(colour)} There are {count}.'
        else:
            more = self._count(other)
            question = (
                f'Are there more {colour} or {other} shapes?\n'
                f'A. {colour}\nB. {other}\nC. as many'
            )
            plan = f'I count the {colour} and the {other} shapes.'
            thought = (
                f'{self._counting(colour)} {self._counting(other)} '
                f'{count} {colour}, {more} {other}.'
            )
            answer = 'A' if count > more else 'B' if more > count else 'C'
        return question, join_sections(plan, caption, thought, answer)

    def _count(self, colour: str) -> int:
        return sum(thing is not None and thing[0] == colour for thing in self.cells)

    def _counting(self, colour: str) -> str:
        found = [thing for thing in self.cells if thing and thing[0] == colour]
        if not found:
            return f'{colour}: none.'
        steps = [f'{shape} {i}' for i, (_, shape) in enumerate(found, 1)]
        return f'{colour}: {", ".join(steps)}.'


def write_shapes_reasoning(
    folder: str | Path,
    sizes: Mapping[str, int],
    seed: int = 0,
    rows: int = 2,
    side: int = 32,
) -> None:
    """Write pictures, questions and responses in LLaVA-CoT's format.

    No picture occurs twice, across all files.

    Args:
        folder: Folder for ``NAME.jsonl`` of each split, with its images in
            ``images/NAME``.
        sizes: Number of questions by name of the split.
        seed: Seed of everything; the same arguments give the same files.
        rows: Number of rows and columns of the pictures' grid.
        side: Side of the pictures, in pixels.

    Raises:
        ValueError: There are not enough pictures.
    """
    cells, total = rows * rows, sum(sizes.values())
    possible = (len(_THINGS) + 1) ** cells
    if total > possible:
        raise ValueError(
            f'{total} pictures are wanted, but with rows={rows} there are {possible}.'
        )
    choose = random.Random(seed)
    numbers = iter(choose.sample(range(possible), total))
    for name, count in sizes.items():
        images = Path(folder) / 'images' / name
        images.mkdir(parents=True, exist_ok=True)
        lines = []
        for i in range(count):
            picture = Picture.numbered(next(numbers), cells)
            kind = choose.choice(KINDS)
            question = picture.ask(kind, *choose.sample(COLOUR_NAMES, 2))
            file = images / f'{i}.png'
            picture.draw(side).save(file)
            path = file.relative_to(folder).as_posix()
            lines.append(json.dumps(_row(f'{name}/{i}', path, kind, *question)) + '\n')
        Path(folder, f'{name}.jsonl').write_text(''.join(lines), encoding='utf-8')


def _row(
    identifier: str, image: str, kind: str, question: str, response: str
) -> dict[str, Any]:
    return dict(
        id=identifier,
        image=image,
        category=kind,
        conversations=[
            {'from': 'human', 'value': question},
            {'from': 'gpt', 'value': response},
        ],
    )
