"""Checkpoint files of a run: written atomically, and found again."""

from __future__ import annotations

import io
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

POINTER = 'last_checkpoint'
"""File in a work directory that names its last checkpoint."""

PART = '.part'
"""Ending of a file that is being written."""

_NUMBERED = re.compile(r'(epoch|iter)_(\d+)\.pth')


def save(checkpoint: Any, path: str | Path) -> None:
    """Write a ``torch.save`` file completely or not at all.

    Until the file is complete and on disk, it has another name, and an existing file
    with the final name is kept.

    Raises:
        OSError: The file cannot be written, for example because the disk is full; the
            error names the file.
    """
    import torch

    content = io.BytesIO()
    torch.save(checkpoint, content)
    write(path, content.getbuffer())


def write(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file completely or not at all, as :func:`save` does.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    try:
        with open(part, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, if the system supports it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems
        pass
    finally:
        os.close(descriptor)


def put_in_place(partial: Path, folder: Path) -> None:
    """Rename a complete folder to its final name, and remove the previous one.

    If this is interrupted at any time, one of the two exists completely: under the
    final name, or as ``.NAME.old``, a name that nobody else's folder has. Where the
    final name is a link, it stays, and the folder goes to where it points.
    """
    if folder.is_symlink():
        folder = folder.resolve()
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = folder.with_name(f'.{folder.name}.partial')
        shutil.rmtree(beside, ignore_errors=True)
        partial = Path(shutil.move(partial, beside))
    old = folder.with_name(f'.{folder.name}.old')
    for path in [*partial.rglob('*'), partial]:
        if path.is_file():
            with open(path, 'rb') as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    partial.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def point_to(work_dir: str | Path, name: str) -> None:
    """Record the name of a run's last checkpoint."""
    write(Path(work_dir) / POINTER, name.encode())


def is_complete(path: str | Path) -> bool:
    """Whether a checkpoint was written completely.

    A ``torch.save`` file is a zip archive, whose directory comes last. Sharded
    checkpoints are folders.
    """
    path = Path(path)
    return path.is_dir() or (path.is_file() and zipfile.is_zipfile(path))


def checkpoint_folder(work_dir: str | Path, out_dir: str | Path | None = None) -> Path:
    """The folder of a run's checkpoints.

    Args:
        work_dir: Work directory of the run.
        out_dir: ``out_dir`` of the ``CheckpointHook``, which contains a folder per run.
    """
    if out_dir is None or Path(out_dir) == Path(work_dir):
        return Path(work_dir)
    return Path(out_dir) / Path(os.path.abspath(work_dir)).name


def find_resumable(
    work_dir: str | Path, out_dir: str | Path | None = None
) -> str | None:
    """Find the last complete checkpoint of an interrupted run.

    This is the one named by ``last_checkpoint``. If the run was killed while writing
    either file, it is the newest complete ``epoch_N.pth`` or ``iter_N.pth``. From a
    path in ``last_checkpoint`` only the name counts, because this folder may be a copy
    of the one in the path.

    Args:
        work_dir, out_dir: See :func:`checkpoint_folder`.

    Returns:
        Path of the checkpoint, or None if there is no checkpoint at all.

    Raises:
        ValueError: There are checkpoints, but none is complete.
    """
    folder = checkpoint_folder(work_dir, out_dir)
    pointer = Path(work_dir) / POINTER
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if named and is_complete(folder / Path(named).name):
        return str(folder / Path(named).name)
    found = [path for path in folder.glob('*.pth') if _NUMBERED.fullmatch(path.name)]
    complete = [path for path in found if is_complete(path)]
    if complete:
        return str(max(complete, key=_age))
    if not named and not found:
        return None
    damaged = ', '.join(sorted(path.name for path in found)) or 'none at all'
    note = f'; last_checkpoint names {Path(named).name}' if named else ''
    raise ValueError(
        f'there is no complete checkpoint in "{folder}" to resume from (found: '
        f'{damaged}{note}). Copy one there, or start anew in another work_dir or '
        'without these files'
    )


def _age(path: Path) -> tuple[float, int]:
    # The files of a copied folder may all have the time of the copy.
    return path.stat().st_mtime, int(_NUMBERED.fullmatch(path.name).group(2))
