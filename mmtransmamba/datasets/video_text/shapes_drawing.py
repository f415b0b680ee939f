"""Moving shapes, drawn with soft edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

COLOURS = {
    'red': (220, 40, 40),
    'green': (50, 180, 60),
    'blue': (60, 90, 230),
    'yellow': (235, 215, 60),
    'purple': (150, 60, 190),
    'orange': (240, 140, 40),
    'cyan': (70, 205, 215),
    'white': (240, 240, 240),
}
SIZES = {'small': 0.11, 'large': 0.2}
"""Radius as a part of the image's side."""
MOTIONS = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1)}
"""Directions as (x, y), y downwards."""


def _circle(x, y):
    return np.hypot(x, y) - 1


def _square(x, y):
    return np.maximum(abs(x), abs(y)) - 0.85


def _diamond(x, y):
    return (abs(x) + abs(y) - 1.1) * 0.7


def _triangle(x, y):
    return np.maximum(0.89 * abs(x) - 0.45 * y - 0.45, y - 0.8)


def _cross(x, y):
    x, y = abs(x), abs(y)
    return np.minimum(np.maximum(x - 0.3, y - 1), np.maximum(x - 1, y - 0.3))


def _ring(x, y):
    return abs(np.hypot(x, y) - 0.75) - 0.25


SHAPES = {
    'circle': _circle,
    'square': _square,
    'diamond': _diamond,
    'triangle': _triangle,
    'cross': _cross,
    'ring': _ring,
}
"""Signed distances from the edge, of about unit radius, negative inside."""


@dataclass(frozen=True)
class Scene:
    """The content of a video.

    Attributes:
        shape: A key of ``SHAPES``.
        colour: A key of ``COLOURS``.
        size: A key of ``SIZES``.
        motion: A key of ``MOTIONS``.
        column: Start column: 0 left, 1 centre, 2 right.
        row: Start row: 0 top, 1 middle, 2 bottom.
    """

    shape: str
    colour: str
    size: str
    motion: str
    column: int
    row: int


NOISE = 12.0
"""Standard deviation of the pixels' noise, on the scale 0..255."""


def draw_scene(
    scene: Scene,
    rng: np.random.Generator,
    num_frames: int,
    img_size: int,
) -> np.ndarray:
    """Draw a video of a scene; each draw is different.

    Start, speed, size and colour vary a little. The background is grey: plain, with a
    gradient, or with a coarse texture that does not move. Every pixel has noise.

    Args:
        scene: What to draw.
        rng: Source of the variation.
        num_frames: Number of frames.
        img_size: Side in pixels.

    Returns:
        RGB, uint8 ``[3, T, H, W]``.
    """
    direction = np.array(MOTIONS[scene.motion])
    place = np.array((scene.column, scene.row))
    start = 0.2 + 0.3 * place + rng.uniform(-0.05, 0.05, 2)
    # From the edge across, from the centre to the edge: the path alone is ambiguous.
    way = rng.uniform(0.28, 0.36) if place[direction != 0][0] == 1 else None
    way = way or rng.uniform(0.45, 0.65)
    radius = SIZES[scene.size] * rng.uniform(0.9, 1.1)
    colour = np.array(COLOURS[scene.colour]) + rng.normal(0, 8, 3)

    steps = np.linspace(0, 1, num_frames)[:, None]
    centres = start + steps * way * direction
    pixels = (np.arange(img_size) + 0.5) / img_size
    x = (pixels[None, None, :] - centres[:, 0, None, None]) / radius
    y = (pixels[None, :, None] - centres[:, 1, None, None]) / radius
    distance = SHAPES[scene.shape](x, y) * radius * img_size
    inside = np.clip(0.5 - distance, 0, 1)  # an edge one pixel wide

    video = background(rng, img_size)[None, None] * np.ones((3, num_frames, 1, 1))
    video += inside * (colour[:, None, None, None] - video)
    video += rng.normal(0, NOISE, video.shape)
    return np.clip(np.rint(video), 0, 255).astype(np.uint8)


def paint(
    picture: np.ndarray,
    shape: Callable[[np.ndarray, np.ndarray], np.ndarray],
    centre: np.ndarray,
    radius: float,
    colour: np.ndarray,
) -> None:
    """Paint a shape onto a picture.

    Args:
        picture: Square, ``[3, H, W]``; modified in place.
        shape: One of ``SHAPES``.
        centre: x and y, as fractions of the picture's side.
        radius: As a fraction of the picture's side.
        colour: RGB.
    """
    side = picture.shape[-1]
    pixels = (np.arange(side) + 0.5) / side
    x = (pixels[None, :] - centre[0]) / radius
    y = (pixels[:, None] - centre[1]) / radius
    inside = np.clip(0.5 - shape(x, y) * radius * side, 0, 1)
    picture += inside * (colour[:, None, None] - picture)


def background(rng: np.random.Generator, side: int) -> np.ndarray:
    """A dark grey background ``[H, W]``."""
    level = rng.uniform(20, 90)
    kind = rng.integers(3)
    if kind == 1:
        ramp = np.linspace(-1, 1, side)
        angle = rng.uniform(0, 2 * np.pi)
        return level + 20 * (np.cos(angle) * ramp + np.sin(angle) * ramp[:, None])
    if kind == 2:
        coarse = rng.normal(0, 14, (8, 8))
        cells = np.arange(side) * 8 // side
        return level + coarse[cells[:, None], cells]
    return np.full((side, side), level)
