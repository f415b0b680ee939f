"""Pictures of coloured shapes in the cells of a grid."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmtransmamba.datasets.video_text.shapes_drawing import (
    COLOURS,
    SHAPES,
    background,
    paint,
)

SHAPE_NAMES = ('ring', 'square', 'triangle', 'cross')
COLOUR_NAMES = ('red', 'green', 'blue', 'yellow', 'white', 'purple')
ROWS, COLUMNS = ('top', 'middle', 'bottom'), ('left', 'centre', 'right')
MAX_FIGURES = 4
TEST_PART = 5
"""One scene of so many is for testing."""


@dataclass(frozen=True, order=True)
class Figure:
    """A shape in a scene.

    Attributes:
        row, column: Its cell, each from 0 to 2.
        shape: One of ``SHAPE_NAMES``.
        colour: One of ``COLOUR_NAMES``.
    """

    row: int
    column: int
    shape: str
    colour: str

    @property
    def place(self) -> str:
        """Its cell in words, such as ``top left``, ``left`` or ``centre``."""
        row, column = ROWS[self.row], COLUMNS[self.column]
        if self.row == 1:
            return column
        return row if self.column == 1 else f'{row} {column}'

    @property
    def name(self) -> str:
        """Colour and shape."""
        return f'{self.colour} {self.shape}'


Scene = tuple[Figure, ...]
"""Figures in different cells, row by row."""


def random_scene(rng: np.random.Generator) -> Scene:
    """One to four figures; each number has the same probability."""
    count = rng.integers(1, MAX_FIGURES + 1)
    figures = [
        Figure(
            int(cell) // 3,
            int(cell) % 3,
            SHAPE_NAMES[rng.integers(len(SHAPE_NAMES))],
            COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))],
        )
        for cell in rng.permutation(9)[:count]
    ]
    return tuple(sorted(figures))


def split_of(scene: Scene) -> str:
    """``'train'`` or ``'test'``.

    The result depends only on the scene, so that no scene is ever in both.
    """
    figures = [(f.row, f.column, f.shape, f.colour) for f in scene]
    return 'train' if zlib.crc32(repr(figures).encode()) % TEST_PART else 'test'


def draw(scene: Scene, rng: np.random.Generator, side: int) -> Image.Image:
    """A picture of a scene; each draw differs a little.

    Args:
        scene: What to draw.
        rng: Source of positions, sizes and colours within their bounds, of the
            background and of the noise.
        side: Side in pixels.

    Returns:
        RGB.
    """
    picture = background(rng, side) * np.ones((3, 1, 1))
    for figure in scene:
        centre = (np.array((figure.column, figure.row)) + 0.5) / 3
        paint(
            picture,
            SHAPES[figure.shape],
            centre + rng.uniform(-0.015, 0.015, 2),
            rng.uniform(0.135, 0.155),
            np.array(COLOURS[figure.colour]) + rng.normal(0, 8, 3),
        )
    picture += rng.normal(0, 6, picture.shape)
    pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels.transpose(1, 2, 0))
