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
        prompt: Text of the question, without image or chat tokens.
        gold: The right answer in the benchmark's own form; None if it is secret.
        images: Names of files below the image folder, or the files themselves if the
            annotations contain them.
        options: Texts of the options A, B, …; empty for an open question.
        category: Group with a separate figure.
        info: Other data that the metric of this benchmark needs.
    """

    question_id: str
    prompt: str
    gold: Any = None
    images: tuple[str | bytes, ...] = ()
    options: tuple[str, ...] = ()
    category: str = ''
    info: dict[str, Any] = field(default_factory=dict)


def load_images(sample: VLMSample, folder: str | Path) -> list[Image.Image]:
    """The images of a sample in RGB, in the order in which the prompt refers to them.

    They are upright; see :func:`~mmtransmamba.utils.images.to_rgb`.

    Raises:
        FileNotFoundError: The file does not exist below ``folder``.
        ValueError: A file is not an image.
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
