"""Reading of images: upright, in 8-bit RGB, whatever their mode and depth."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2
_BACKGROUND = (255, 255, 255, 255)


class ImageError(ValueError):
    """An image that cannot be read."""


def open_image(
    source: str | os.PathLike | bytes, name: str = '', on_white: bool = True
) -> Image.Image:
    """Read an image; if it has several frames, the first one.

    Args:
        source: A file, or its content.
        name: Name in messages; by default its path, or its number of bytes.
        on_white: See :func:`to_rgb`.

    Returns:
        See :func:`to_rgb`.

    Raises:
        FileNotFoundError: The file does not exist.
        ImageError: The image cannot be decoded, is truncated, or is so large that it
            must be a decompression bomb.
    """
    if isinstance(source, bytes):
        name, file = name or f'an image of {len(source)} bytes', io.BytesIO(source)
    else:
        name, file = name or str(source), Path(source)
        if not file.is_file():
            raise FileNotFoundError(f'There is no image {name}.')
    try:
        with Image.open(file) as opened:
            return to_rgb(opened, on_white)
    # Pillow's decoders have no common error class; a truncated PNG is a SyntaxError,
    # and an oversized one a DecompressionBombError.
    except Exception as error:
        raise ImageError(f'{name} does not decode: {error!r}') from error


def to_rgb(image: Image.Image, on_white: bool = True) -> Image.Image:
    """Convert an image to 8-bit RGB, as a viewer shows it.

    * It is rotated and mirrored by its EXIF orientation.
    * Transparent areas become white.
    * 16-bit (12-bit, 32-bit) greyscale is scaled by its depth, so that 65535 becomes
      255, and not clipped. If neither file nor mode defines the depth (integers of
      Pillow's mode ``I``), it is the smallest of 8, 16 and 32 bits that holds all
      values.
    * Floating-point greyscale has the range 0 to 1 if all values are below 2, else 0 to
      255 if no value is above 255, else 0 to 65535 if none is above that, else 0 to its
      largest finite value. Negative values and NaN become black, infinity white.
    * A TIFF in which zero is white is inverted.
    * Colour profiles are not applied.

    Args:
        image: An image in any mode. It is not changed.
        on_white: Whether transparent areas become white; otherwise, they have the
            colour that is stored for them, as OpenCV reads them.

    Raises:
        ImageError: The image has no pixels.
        OSError: Its file is truncated.
    """
    if 0 in image.size:
        raise ImageError(f'the image has no pixels: {image.width} x {image.height}')
    raw = _raw_mode(image)  # before load(), which forgets it
    image.load()
    orientation = _orientation(image)  # after load(): Pillow rotates TIFFs itself
    if image.mode.startswith(('I', 'F')):
        rgb = _from_deep_grey(image, on_white)
    elif _has_transparency(image):
        rgb = _on_white(image, raw) if on_white else _without_alpha(image)
    else:
        rgb = image.convert('RGB') if image.mode != 'RGB' else image.copy()
    if orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
    # Later readers must neither rotate it again nor treat a colour as transparent.
    rgb.info = {}
    return Image.frombytes('RGB', rgb.size, rgb.tobytes())


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 if it is damaged or missing."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF raises arbitrary errors of its parser
        return 1
    return value if isinstance(value, int) else 1


def _raw_mode(image: Image.Image) -> str:
    """How the pixels of an unread file are stored, such as ``L;2`` for 2 bits."""
    tiles = getattr(image, 'tile', None)
    raw = tiles[0][3] if tiles else ''
    return str(raw[0] if isinstance(raw, tuple) and raw else raw)


def _has_transparency(image: Image.Image) -> bool:
    return (
        image.mode in ('RGBA', 'RGBa', 'LA', 'La', 'PA')
        or 'transparency' in image.info
        # A quantised image has its transparency in the palette.
        or (image.mode == 'P' and getattr(image.palette, 'mode', '').endswith('A'))
    )


def _on_white(image: Image.Image, raw: str) -> Image.Image:
    transparent = image.info.get('transparency')
    few_bits = re.fullmatch('L;([24])', raw)
    if few_bits and isinstance(transparent, int):
        # Pillow spreads the pixels of such a PNG over 0 to 255, but not this value.
        image = image.copy()
        image.info['transparency'] = transparent * 255 // (2 ** int(few_bits[1]) - 1)
    if image.mode == 'La':
        image = image.convert('LA')
    if image.mode == '1':
        image = image.convert('L')
        image.info['transparency'] = 255 if transparent else 0
    elif isinstance(transparent, tuple) and max(transparent) > 255:
        # For a 16-bit PNG, of which Pillow keeps the upper 8 bits.
        image = image.copy()
        image.info['transparency'] = tuple(value >> 8 for value in transparent)
    colours = image.convert('RGBA')
    ground = Image.new('RGBA', colours.size, _BACKGROUND)
    return Image.alpha_composite(ground, colours).convert('RGB')


def _without_alpha(image: Image.Image) -> Image.Image:
    if image.mode in ('LA', 'La'):
        return image.convert('LA').convert('L').convert('RGB')
    return image.convert('RGBA').convert('RGB')


def _from_deep_grey(image: Image.Image, on_white: bool) -> Image.Image:
    values = np.asarray(image)
    if image.mode == 'I' and _tiff_bits(image) == 32 and not _is_signed(image):
        values = values.view(np.uint32)  # Pillow has no such mode
    shown = np.nan_to_num(values.astype(np.float64), posinf=np.inf)
    finite = shown[np.isfinite(shown)]
    top = _white(image, float(finite.max(initial=0.0)))
    grey = np.clip(shown / top, 0, 1)
    if _tiff_tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 1 - grey
    transparent = image.info.get('transparency')
    if on_white and isinstance(transparent, int):
        grey[values == transparent] = 1
    return Image.fromarray(np.rint(grey * 255).astype(np.uint8)).convert('RGB')


def _white(image: Image.Image, largest: float) -> float:
    """The value of white; see :func:`to_rgb`."""
    if image.mode == 'F':
        if largest < 2:
            return 1.0
        return next((top for top in (255.0, 65535.0) if largest <= top), largest)
    bits = _tiff_bits(image)
    if bits is not None and 8 < bits <= 16:  # 12 bits are stored in 16-bit words
        return float(2 ** (bits - _is_signed(image)) - 1)
    if image.mode.startswith('I;16') or image.format in ('PNG', 'PPM', 'JPEG2000'):
        return 65535.0
    return float(
        next((2**n - 1 for n in (8, 16, 31) if largest < 2**n), 2**32 - 1),
    )


def _tiff_bits(image: Image.Image) -> int | None:
    return _tiff_tag(image, _BITS)


def _is_signed(image: Image.Image) -> bool:
    return _tiff_tag(image, _SAMPLE_FORMAT) == _SIGNED


def _tiff_tag(image: Image.Image, number: int) -> Any:
    """A tag's value for the first channel, None if there is none."""
    tags: Any = getattr(image, 'tag_v2', None)
    value = tags.get(number) if tags else None
    return value[0] if isinstance(value, tuple) and value else value
