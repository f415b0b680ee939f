"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_FILE = '.lock'


@contextmanager
def alone_in(folder: Path, owner: str) -> Iterator[None]:
    """Keep other processes out of a folder that one of them writes.

    The lock ends with the process, however it ends; its file stays. Windows has none.

    Args:
        folder: The folder, made if there is none.
        owner: Name of the function, for the message.

    Raises:
        BlockingIOError: Another process writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open('w') as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f'{owner}: another process writes to "{folder}"; let it finish, '
                    'or choose another folder'
                ) from None
        yield
