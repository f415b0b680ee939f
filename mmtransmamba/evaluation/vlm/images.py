"""Lookup of the images of a benchmark's questions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .sample import VLMSample

# SEED-Bench's names have no extension, and other sets' extensions differ by release.
_SUFFIXES = ('', '.jpg', '.png', '.jpeg')
_SHOWN = 3


def find_images(
    samples: Sequence[VLMSample], folders: Sequence[str | Path]
) -> list[VLMSample]:
    """The same questions with the paths of their images.

    Args:
        samples: Questions whose images are names.
        folders: Folders to search for the images, in this order.

    Returns:
        Questions whose images are files, or file contents if the annotations contain
        them.

    Raises:
        FileNotFoundError: An image is missing; the message gives the number of missing
            images and the expected place.
        ValueError: There are questions without an image.
    """
    without = [sample.question_id for sample in samples if not sample.images]
    if without:
        raise ValueError(
            f'{len(without)} of {len(samples)} questions come without an image '
            f'({_some(without)}): the annotations have none. Take the official ones.'
        )
    missing, found = [], []
    for sample in samples:
        places = [_place(image, folders) for image in sample.images]
        missing += [
            image
            for image, place in zip(sample.images, places, strict=True)
            if place is None
        ]
        found.append(replace(sample, images=tuple(places)))
    if missing:
        missing = list(dict.fromkeys(missing))
        raise FileNotFoundError(
            f'{len(missing)} images are missing ({_some(missing)}). They are looked '
            f'for in {" and ".join(str(folder) for folder in folders)}.'
        )
    return found


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:_SHOWN]) + (', …' if len(names) > _SHOWN else '')


def _place(image: str | bytes, folders: Sequence[str | Path]) -> str | bytes | None:
    if isinstance(image, bytes):
        return image
    return next(
        (p for f in folders for p in _candidates(f, image) if os.path.isfile(p)), None
    )


def _candidates(folder: str | Path, name: str) -> Iterator[str]:
    head, tail = os.path.split(name)
    # MME keeps the images of some categories one folder deeper.
    for middle in ('', 'images'):
        for suffix in _SUFFIXES:
            yield os.path.join(folder, head, middle, tail + suffix)
