"""What tells a model's files from others under the same names."""

from __future__ import annotations

from pathlib import Path

from mmtransmamba.models.folders.companions import COMPANIONS

_WEIGHTS = ('*.safetensors', '*.bin')


def describe_files(path: str | Path) -> dict[str, list[int]]:
    """Size and modification time of files, to detect other weights and settings.

    Args:
        path: A checkpoint or another file, or the folder of a model.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        patterns = (*_WEIGHTS, *COMPANIONS)
        files = sorted({f for p in patterns for f in path.glob(p) if f.is_file()})
    return {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in files}
