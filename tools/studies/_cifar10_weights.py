"""Where the teacher that ``cifar10_teacher.py`` trains is kept."""

from __future__ import annotations

from pathlib import Path


def cifar10_teacher(out: Path) -> Path:
    """File of the weights, in the folder of the results."""
    return out / 'cifar10' / 'teacher.safetensors'


def require_cifar10_teacher(out: Path, tool: str) -> Path:
    """File of the weights.

    Args:
        out: Folder of the results.
        tool: Who needs it, for the message.

    Raises:
        SystemExit: The teacher has not been trained.
    """
    path = cifar10_teacher(out)
    if not path.is_file():
        raise SystemExit(
            f'{tool}: error: the part cifar10 needs {path}; '
            'tools/studies/cifar10_teacher.py trains it'
        )
    return path
