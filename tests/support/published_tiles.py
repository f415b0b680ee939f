"""How the published LLaVAs cut an image into tiles, and unite the tiles' tokens.

A grid is a width and a height in pixels; the rows of an image are lists of tokens.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def best_grid(size: tuple[int, int], grids: list) -> list[int]:
    """The grid that keeps most of an image; of several, that with least waste."""
    found = []
    for order, (width, height) in enumerate(grids):
        scale = min(width / size[0], height / size[1])
        kept = int(size[0] * scale) * int(size[1] * scale)
        kept = min(kept, size[0] * size[1])
        found.append((-kept, width * height - kept, order))
    return grids[min(found)[2]]


def tiles_of(image: Image.Image, grids: list, side: int, mean, std) -> Tensor:
    """The whole image in a square, then its tiles on black, ``[T, 3, S, S]``."""
    width, height = best_grid(image.size, grids)
    scale = min(width / image.width, height / image.height)
    inner = (
        min(math.ceil(image.width * scale), width),
        min(math.ceil(image.height * scale), height),
    )
    canvas = Image.new('RGB', (width, height))
    corner = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas.paste(image.resize(inner, Image.Resampling.BICUBIC), corner)
    parts = [image.resize((side, side), Image.Resampling.BICUBIC)]
    parts += [
        canvas.crop((left, top, left + side, top + side))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    return pixels_of(parts, mean, std)


def pixels_of(images: list[Image.Image], mean, std) -> Tensor:
    pixels = [(np.asarray(image) / 255 - np.array(mean)) / std for image in images]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


def rows_of_tiles(features: list[Tensor], grid, side: int, patch: int) -> list[list]:
    """The tokens of all tiles, row by row of the image."""
    each = side // patch
    across, down = grid[0] // side, grid[1] // side
    return [
        [
            features[y // each * across + x // each][y % each * each + x % each]
            for x in range(across * each)
        ]
        for y in range(down * each)
    ]


def without_padding(rows: list[list], size: tuple[int, int]) -> list[list]:
    """Remove what is padding, at the same places in patches as in pixels."""
    tall, wide = len(rows), len(rows[0])
    if size[0] / size[1] > wide / tall:
        cut = (tall - int(size[1] * (wide / size[0]))) // 2
        return rows[cut : tall - cut]
    cut = (wide - int(size[0] * (tall / size[1]))) // 2
    return [row[cut : wide - cut] for row in rows]


def scaled_down(rows: list[list], most: int) -> list[list]:
    """Bilinear interpolation to about ``most`` tokens, if there are 21 % more."""
    tall, wide = len(rows), len(rows[0])
    times = math.sqrt(tall * wide / most)
    if times <= 1.1:
        return rows

    def sources(before: int) -> list[tuple[int, int, float]]:
        after = int(before // times)
        middles = [max((i + 0.5) * before / after - 0.5, 0) for i in range(after)]
        return [(int(m), min(int(m) + 1, before - 1), m - int(m)) for m in middles]

    return [
        [
            (1 - v) * ((1 - h) * rows[top][left] + h * rows[top][right])
            + v * ((1 - h) * rows[bottom][left] + h * rows[bottom][right])
            for left, right, h in sources(wide)
        ]
        for top, bottom, v in sources(tall)
    ]


def picture(size: tuple[int, int]) -> Image.Image:
    """A smooth image, the same by any good interpolation."""
    x = np.linspace(0, 1, size[0])[None, :, None]
    y = np.linspace(0, 1, size[1])[:, None, None]
    values = 40 + 170 * (x * np.array([1, 0, 0.5]) + y * np.array([0, 1, 0.3])) / 1.5
    values = np.broadcast_to(values, (size[1], size[0], 3))
    return Image.fromarray(values.round().astype(np.uint8))
