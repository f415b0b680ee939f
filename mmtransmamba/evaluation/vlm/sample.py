"""One question of a benchmark, in the form all benchmarks share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from mmtransmamba.utils.images import ImageError, open_image


@dataclass(frozen=True)
class VLMSample:
    """A question about images.

    Attributes:
        question_id: As in the official file. Some benchmarks ask two questions under
            one id; these differ in their prompt.
        prompt: What the model is asked, without image or chat tokens.
        gold: The right answer in the benchmark's own form; None where it is secret.
        images: Names of files below the folder of images, or the files themselves
            where the annotations contain them.
        options: Texts of the options A, B, …; empty for an open question.
        category: Group that gets a figure of its own.
        info: What else the metric of this benchmark needs.
    """

    question_id: str
    prompt: str
    gold: Any = None
    images: tuple[str | bytes, ...] = ()
    options: tuple[str, ...] = ()
    category: str = ''
    info: dict[str, Any] = field(default_factory=dict)


def load_images(sample: VLMSample, folder: str | Path) -> list[Image.Image]:
    """The images of a sample in RGB, in the order the prompt speaks of them.

    They are upright; see :func:`~mmtransmamba.utils.images.to_rgb`.

    Raises:
        FileNotFoundError: There is no such file below ``folder``.
        ValueError: A file is no image.
    """
    loaded = []
    for image in sample.images:
        embedded = isinstance(image, bytes)
        path = 'the annotations' if embedded else Path(folder) / image
        if not embedded and not path.is_file():
            raise FileNotFoundError(
                f'question {sample.question_id}: there is no image at {path}.'
            )
        try:
            loaded.append(open_image(image if embedded else path))
        except ImageError as error:
            raise ImageError(
                f'question {sample.question_id}: the image in {path} cannot be read: '
                f'{error.__cause__!r}'
            ) from error
    return loaded
