"""Generated pictures of geometric shapes, with a label for every pixel."""

from __future__ import annotations

import cv2
import numpy as np

CLASSES = ('background', 'circle', 'square', 'triangle', 'cross')
PALETTE = [[40, 40, 40], [230, 80, 60], [70, 160, 240], [250, 200, 50], [90, 200, 120]]

# Corners of the shapes on a circle of radius 1; the circle itself is drawn as one.
_ARM = 0.32
_CORNERS = {
    'square': [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    'triangle': [(0.0, -1.1), (0.95, 0.55), (-0.95, 0.55)],
    'cross': [
        *((-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM)),
        *(
            (_ARM, 1),
            (-_ARM, 1),
            (-_ARM, _ARM),
            (-1, _ARM),
            (-1, -_ARM),
            (-_ARM, -_ARM),
        ),
    ],
}
# Shapes are rotated by up to this angle, in radians.
_TURN = 0.3
# OpenCV takes coordinates in 1/16 of a pixel.
_SHIFT = 4


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Soft dark blots of colour: float32 ``[size, size, 3]``, scale 0..255."""
    coarse = rng.uniform(0, 110, (4, 4, 3)).astype(np.float32)
    return cv2.resize(coarse, (size, size))


def _mask(kind: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Mask of a shape of random position, size and rotation: bool ``[size, size]``."""
    radius = rng.uniform(0.18, 0.28) * size
    centre = rng.uniform(0.2, 0.8, 2) * size
    mask = np.zeros((size, size), np.uint8)
    scale = 1 << _SHIFT
    if kind == 'circle':
        place = tuple(int(x) for x in centre * scale)
        cv2.circle(mask, place, int(0.9 * radius * scale), 1, cv2.FILLED, shift=_SHIFT)
    else:
        angle = rng.uniform(-_TURN, _TURN)
        cos, sin = np.cos(angle), np.sin(angle)
        turned = np.array(_CORNERS[kind]) @ np.array([[cos, sin], [-sin, cos]])
        points = np.rint((centre + radius * turned) * scale).astype(np.int32)
        cv2.fillPoly(mask, [points], 1, shift=_SHIFT)
    return mask.astype(bool)


def draw(kinds: list[int], rng: np.random.Generator, size: int) -> tuple:
    """Draw shapes on top of each other.

    Neither colour nor position reveals a shape's class, only its outline does.

    Args:
        kinds: Class of each shape, from the rearmost; indices in ``CLASSES``.
        rng: Source of everything else.
        size: Side of the picture in pixels.

    Returns:
        The picture, uint8 ``[size, size, 3]``, and its labels, uint8 ``[size, size]``.
    """
    image = _background(rng, size)
    labels = np.zeros((size, size), np.uint8)
    for kind in kinds:
        mask = _mask(CLASSES[kind], rng, size)
        image[mask] = rng.uniform(120, 255, 3)
        labels[mask] = kind
    image += rng.normal(0, 10, image.shape)
    return image.clip(0, 255).astype(np.uint8), labels
