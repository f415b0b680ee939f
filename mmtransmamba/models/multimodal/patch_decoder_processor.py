"""The processor of decoder-only models: large images as several tiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import LlavaProcessor
from transformers.image_transforms import to_pil_image
from transformers.image_utils import load_image, make_flat_list_of_images

from mmtransmamba.utils.images import open_image, to_rgb


class PatchDecoderProcessor(LlavaProcessor):
    """LLaVA's processor that can cut an image into tiles.

    With ``max_tiles`` above 1, an image is resized to the grid of tiles whose aspect
    ratio is closest to its own, and cut into tiles row by row. A small version of the
    whole image follows, unless there is only one tile. This is the dynamic resolution
    of InternVL-1.5, which HoVLE uses. One ``<image>`` in the text stands for all tiles.

    Args:
        image_processor: Computes the pixels of a tile; its ``size`` is the tile's.
        tokenizer, patch_size, vision_feature_select_strategy, chat_template,
            image_token, num_additional_image_tokens: See ``LlavaProcessor``.
        max_tiles: Maximum number of tiles of an image, without the small version.
        thumbnail: Whether to add a small version of the whole image.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int | None = None,
        vision_feature_select_strategy: str | None = 'full',
        chat_template: str | None = None,
        image_token: str = '<image>',
        num_additional_image_tokens: int = 0,
        max_tiles: int = 1,
        thumbnail: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_processor,
            tokenizer,
            patch_size=patch_size,
            vision_feature_select_strategy=vision_feature_select_strategy,
            chat_template=chat_template,
            image_token=image_token,
            num_additional_image_tokens=num_additional_image_tokens,
            **kwargs,
        )
        if max_tiles < 1:
            raise ValueError(f'max_tiles={max_tiles} must be at least 1.')
        self.max_tiles = max_tiles
        self.thumbnail = thumbnail

    def __call__(
        self, images: Any = None, text: str | Sequence[str] | None = None, **kwargs: Any
    ) -> Any:
        """See ``LlavaProcessor``; ``pixel_values`` are ``[N, 3, H, W]`` of N tiles.

        Raises:
            ValueError: The number of images differs from that mentioned in the texts.
        """
        if images is not None and (self.max_tiles > 1 or _are_files(images)):
            tiles = [self.tiles(image) for image in _as_pil(images)]
            images = [tile for of_image in tiles for tile in of_image]
            if text is not None and self.max_tiles > 1:
                text = self._repeat([text] if isinstance(text, str) else text, tiles)
        return super().__call__(images=images, text=text, **kwargs)

    def tiles(self, image: Image.Image) -> list[Image.Image]:
        """The tiles of an image, row by row, followed by the small version.

        The grid is chosen by the shape of the upright image in RGB.
        """
        image = to_rgb(image)
        if self.max_tiles == 1:
            return [image]
        size = self.image_processor.size
        height = size.get('height') or size['shortest_edge']
        width = size.get('width') or size['shortest_edge']
        columns, rows = tile_grid(image.size, (width, height), self.max_tiles)
        whole = image.resize((columns * width, rows * height), Image.Resampling.BICUBIC)
        tiles = [
            whole.crop((x * width, y * height, (x + 1) * width, (y + 1) * height))
            for y in range(rows)
            for x in range(columns)
        ]
        if self.thumbnail and len(tiles) > 1:
            tiles.append(image.resize((width, height), Image.Resampling.BICUBIC))
        return tiles

    def _repeat(self, texts: Sequence[str], tiles: list[list]) -> list[str]:
        pieces = [text.split(self.image_token) for text in texts]
        mentioned = sum(len(parts) - 1 for parts in pieces)
        if mentioned != len(tiles):
            raise ValueError(
                f'The texts have {mentioned} times {self.image_token}, but there are '
                f'{len(tiles)} images.'
            )
        counts = iter(map(len, tiles))
        return [
            first + ''.join(self.image_token * next(counts) + part for part in rest)
            for first, *rest in pieces
        ]


def tile_grid(
    image: tuple[int, int], tile: tuple[int, int], max_tiles: int
) -> tuple[int, int]:
    """Columns and rows of tiles, as InternVL-1.5 chooses them.

    The ratio of columns to rows is the one closest to the image's ratio of width to
    height. Among several such grids, a larger one is used if the image has more than
    half of its pixels.

    Args:
        image: Width and height in pixels.
        tile: Width and height of a tile in pixels.
        max_tiles: Maximum number of tiles of the grid.
    """
    width, height = image
    grids = sorted(
        (
            (columns, rows)
            for columns in range(1, max_tiles + 1)
            for rows in range(1, max_tiles // columns + 1)
        ),
        key=lambda grid: grid[0] * grid[1],
    )
    best, distance = (1, 1), float('inf')
    for columns, rows in grids:
        away = abs(width / height - columns / rows)
        area = columns * tile[0] * rows * tile[1]
        if away < distance or (away == distance and width * height > 0.5 * area):
            best, distance = (columns, rows), away
    return best


def _as_pil(images: Any) -> list[Image.Image]:
    if isinstance(images, str | Image.Image):
        images = [images]
    if _are_files(images):
        return [_load(image) for image in images]
    return [to_pil_image(image) for image in make_flat_list_of_images(images)]


def _are_files(images: Any) -> bool:
    """Whether images are file names or Pillow images, not arrays."""
    if isinstance(images, str | Image.Image):
        return True
    return isinstance(images, list | tuple) and all(
        isinstance(image, str | Image.Image) for image in images
    )


def _load(image: str | Image.Image) -> Image.Image:
    if isinstance(image, str) and Path(image[:4096]).is_file():
        return open_image(image)
    # transformers reads URLs and images in base64.
    return to_rgb(load_image(image) if isinstance(image, str) else image)
