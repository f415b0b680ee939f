"""Conversations about images: turns, images, and reasons to reject them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from mmtransmamba.utils.images import ImageError, open_image, to_rgb

IMAGE = '<image>'
"""Stands in a turn's text where an image belongs; LLaVA's convention."""

ROLES = ('system', 'user', 'assistant')

ImageSource = str | os.PathLike | bytes | Image.Image
"""A file, its content, or the image itself."""

REASONS = (
    'unreadable row',
    'malformed turns',
    'empty answer',
    'image count',
    'missing image',
    'corrupt image',
    'template',
    'too long',
)
"""Reasons to skip a sample; ``docs/vlm_data.md`` explains each of them."""


class BadSampleError(ValueError):
    """A sample that cannot be used, while others can.

    Args:
        reason: One of :data:`REASONS`.
        message: Description of the fault.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f'{self.reason}: {self.message}'


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation.

    Args:
        role: One of :data:`ROLES`.
        text: Its words, with :data:`IMAGE` in place of each image.
    """

    role: str
    text: str


@dataclass
class Conversation:
    """Turns of user and assistant, and the images they refer to.

    Args:
        turns: An optional system turn, then user and assistant alternately.
        images: In the order of the placeholders in the turns. A path is relative to
            ``image_root``.
        id: Identifier in the data set.
        image_root: Folder of the images.
    """

    turns: list[Turn]
    images: list[ImageSource] = field(default_factory=list)
    id: str = ''
    image_root: str | None = None

    def check(self, answered: bool = True) -> None:
        """Reject a conversation that cannot be learned from or answered.

        Args:
            answered: Whether the last turn must be the assistant's; otherwise it must
                be the user's.

        Raises:
            BadSampleError: The turns do not alternate, an answer is empty, or the
                numbers of placeholders and images differ.
        """
        roles = [turn.role for turn in self.turns]
        spoken = roles[1:] if roles[:1] == ['system'] else roles
        wanted = ['user', 'assistant'] * (len(spoken) // 2)
        if not answered:
            wanted.append('user')
        if not spoken or spoken != wanted:
            raise BadSampleError(
                'malformed turns',
                f'conversation {self.id!r} has the roles {roles}; expected are user '
                'and assistant in turn, perhaps a system turn before them, and the '
                f"{'assistant' if answered else 'user'}'s turn at the end",
            )
        for turn in self.turns:
            if turn.role == 'assistant' and not turn.text.strip():
                raise BadSampleError(
                    'empty answer', f'conversation {self.id!r} has an empty answer'
                )
        shown = sum(t.text.count(IMAGE) for t in self.turns if t.role != 'assistant')
        said = sum(t.text.count(IMAGE) for t in self.turns if t.role == 'assistant')
        if said or shown != len(self.images):
            raise BadSampleError(
                'image count',
                f'conversation {self.id!r} has {len(self.images)} images, but '
                f'{shown} times {IMAGE} in the turns of the user and {said} times in '
                "the assistant's",
            )

    def load_images(self) -> list[Image.Image]:
        """All images, in RGB.

        Raises:
            BadSampleError: An image is missing or cannot be decoded.
        """
        return [load_image(image, self.image_root) for image in self.images]


def image_path(image: str | os.PathLike, root: str | os.PathLike | None) -> Path:
    """The path of an image.

    Raises:
        BadSampleError: The file does not exist, or is not below ``root``.
    """
    path = Path(image) if root is None else Path(root) / image
    if root is not None:
        inside = Path(os.path.normpath(path)).is_relative_to(os.path.normpath(root))
        if not inside:
            raise BadSampleError(
                'missing image', f'"{image}" is not below image_root "{root}"'
            )
    if not path.is_file():
        raise BadSampleError('missing image', f'there is no file "{path}"')
    return path


def load_image(
    image: ImageSource, root: str | os.PathLike | None = None
) -> Image.Image:
    """Decode an image.

    Args:
        image: A path, the content of a file, or a PIL image.
        root: Folder that a path is relative to and must not leave.

    Returns:
        The image in RGB, upright; see :func:`~mmtransmamba.utils.images.to_rgb`.

    Raises:
        BadSampleError: The image is missing or cannot be decoded.
    """
    try:
        if isinstance(image, Image.Image):
            return to_rgb(image)
        return open_image(
            image if isinstance(image, bytes) else image_path(image, root)
        )
    except ImageError as error:
        raise BadSampleError('corrupt image', str(error)) from error
    except OSError as error:  # for an image whose file was opened, but not yet read
        raise BadSampleError(
            'corrupt image', f'{image!r} does not decode: {error!r}'
        ) from error
