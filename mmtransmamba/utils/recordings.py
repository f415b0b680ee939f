"""Parts that recordings of a teacher's outputs share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def check_same_recording(
    owner: str, folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Refuse to continue a recording of something else.

    Args:
        owner: Name of the function, for the message.
        folder: Folder of the recording.
        found, wanted: Description of the recording there and of the new one.

    Raises:
        ValueError: They differ; the message lists the fields that do.
    """
    other = [name for name, value in wanted.items() if found.get(name) != value]
    if other:
        raise ValueError(
            f'{owner}: "{folder}" holds another recording ('
            + ', '.join(f'{name}={found.get(name)!r}' for name in other)
            + '); choose another folder, or remove this one.'
        )
