"""Tables of finished runs, which are written whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table, none without the file."""
    if not path.is_file():
        return []
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def claim(folder: Path, **settings: Any) -> None:
    """Record the settings that all rows of a folder's tables have, or check them.

    Raises:
        ValueError: The tables were measured with others.
    """
    path = folder / 'settings.json'
    before = json.loads(path.read_text()) if path.is_file() else settings
    if before != settings:
        options = (f'--{k.replace("_", "-")} {v}' for k, v in before.items())
        raise ValueError(
            f'the tables in {folder} were measured with {", ".join(options)}; give '
            'the same, or another --out and --work-dir'
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings) + '\n')


def add_rows(
    path: Path,
    columns: Sequence[str],
    *new: dict[str, Any],
    keys: Sequence[str] = ('key',),
) -> None:
    """Add rows to a table, in place of earlier ones with the same keys.

    Args:
        path: Its file.
        columns: Its columns.
        *new: The rows.
        keys: Columns that together name a run.
    """

    def name(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[key]) for key in keys)

    replaced = {name(row) for row in new}
    rows = [row for row in read_table(path) if name(row) not in replaced]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    with part.open('w', newline='') as file:
        writer = csv.DictWriter(file, columns, lineterminator='\n')
        writer.writeheader()
        writer.writerows([*rows, *new])
    os.replace(part, path)
