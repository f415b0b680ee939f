"""The environment of a run from its log, and that of this machine."""

from __future__ import annotations

import os
import platform
import re
from datetime import datetime
from importlib import metadata
from pathlib import Path

from mmtransmamba.version import __version__

_PACKAGES = ('torch', 'torchvision', 'transformers', 'mmengine', 'mmcv', 'mmpretrain')
_HEAD, _TAIL = 1 << 18, 1 << 16  # bytes of a log that are read
_FIELD = re.compile(r' {4}(\w[^:]{0,60}): (.{1,200})$')
_TIME = re.compile(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', re.MULTILINE)


def log_files(work_dir: Path) -> list[Path]:
    """One log per start of a run, ``TIME/TIME….log``, oldest first.

    If several processes each have a log, its name has a suffix after the time.
    """
    logs = {}
    for path in sorted(work_dir.glob('*/*.log')):
        if path.name.startswith(path.parent.name):
            logs.setdefault(path.parent, path)
    return list(logs.values())


def logged_environment(log: Path) -> dict[str, str]:
    """Versions and settings from the first lines of mmengine's log; may be empty."""
    fields = {}
    for line in _read(log)[0].split('\n'):
        found = _FIELD.match(line)
        if found and not found[1].startswith('PyTorch compiling'):
            fields[found[1]] = found[2].strip()
        elif fields and not line.strip('-') and line:
            if 'seed' in fields or 'GPU number' in fields:
                break  # the line below the second of two blocks
    return fields


def logged_seconds(logs: list[Path]) -> float | None:
    """Total seconds between the first and the last line of each log."""
    total = None
    for log in logs:
        times = [time for part in _read(log) for time in _TIME.findall(part)]
        try:
            first, last = (
                datetime.strptime(time, '%Y/%m/%d %H:%M:%S')
                for time in (times[0], times[-1])
            )
        except (IndexError, ValueError):
            continue
        total = (total or 0) + max(0, (last - first).total_seconds())
    return total


def this_machine() -> dict[str, str]:
    """Processor, threads and versions of the machine that writes the report."""
    fields = {
        'Processor': _processor(),
        'Logical CPUs': str(os.cpu_count()),
        'System': f'{platform.system()} {platform.machine()}',
        'Python': platform.python_version(),
        'mmtransmamba': __version__,
    }
    for name in _PACKAGES:
        try:
            fields[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            fields[name] = 'not installed'
    try:
        import torch
    except ImportError:
        return fields
    return fields | {'Threads of PyTorch': str(torch.get_num_threads())}


def _read(log: Path) -> tuple[str, str]:
    with log.open('rb') as file:
        head = file.read(_HEAD)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(len(head), size - _TAIL))
        tail = file.read()
    return head.decode(errors='replace'), tail.decode(errors='replace')


def _processor() -> str:
    try:
        text = Path('/proc/cpuinfo').read_text(errors='replace')
    except OSError:
        text = ''
    found = re.search(r'^model name\s*:\s*(.+)$', text, re.MULTILINE)
    return found[1] if found else platform.processor() or 'unknown'
