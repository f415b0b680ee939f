"""Pictures in a run's folder."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

_KINDS = {
    b'\x89PNG\r\n\x1a\n': 'image/png',
    b'\xff\xd8\xff': 'image/jpeg',
    b'GIF8': 'image/gif',
}
_PLACES = ('*', '*/*', '*/vis_data/vis_image/*')
_SUFFIXES = {'.png', '.jpg', '.jpeg', '.gif'}
MAX_PICTURES = 12
MAX_BYTES = 2 << 20


@dataclass
class Picture:
    """A picture, and its place relative to the run's folder."""

    name: str
    data_uri: str


def read_pictures(work_dir: Path) -> tuple[list[Picture], int]:
    """Pictures by name, and the number of further ones that are too many or too large.

    Links are ignored.
    """
    pictures, left = [], 0
    paths = {
        path
        for place in _PLACES
        for path in work_dir.glob(place)
        if path.suffix.lower() in _SUFFIXES and path.is_file()
    }
    for path in sorted(paths):
        if not path.resolve().is_relative_to(work_dir.resolve()):
            continue
        if len(pictures) == MAX_PICTURES or path.stat().st_size > MAX_BYTES:
            left += 1
            continue
        content = path.read_bytes()
        kind = next((k for head, k in _KINDS.items() if content.startswith(head)), None)
        if kind is not None:
            data = base64.b64encode(content).decode()
            name = path.relative_to(work_dir).as_posix()
            pictures.append(Picture(name, f'data:{kind};base64,{data}'))
    return pictures, left
