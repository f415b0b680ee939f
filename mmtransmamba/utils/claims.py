"""Folders whose results all have the same settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmtransmamba.utils.checkpoint_files import write
from mmtransmamba.utils.text_files import read_json


def claim(path: Path, settings: dict[str, Any], results: str, what: str) -> None:
    """Record what the results of a folder depend on, or check that it is the same.

    A record without results is replaced.

    Args:
        path: File of the record, in the folder.
        settings: Values by name, JSON-compatible.
        results: Pattern of the names of the results' files.
        what: Plural noun for the results, used in messages.

    Raises:
        ValueError: The folder has results with other settings, or no record of theirs.
    """
    folder = path.parent
    if any(folder.glob(results)):
        if not path.is_file():
            raise ValueError(
                f'{folder} has {what}, but no {path.name} that says whose; choose '
                'another folder, or remove this one'
            )
        before = read_json(path)
        names = dict.fromkeys([*before, *settings])
        changes = [
            f'{name}: {before.get(name)!r}, now {settings.get(name)!r}'
            for name in names
            if before.get(name) != settings.get(name)
        ]
        if changes:
            raise ValueError(
                f'{folder} has {what} with other settings ({"; ".join(changes)}); give '
                'the same, choose another folder, or remove this one'
            )
    write(path, (json.dumps(settings, indent=2) + '\n').encode())
