"""Tables of finished runs, which are written whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmtransmamba.utils.checkpoint_files import write


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table, none without the file."""
    if not path.is_file():
        return []
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


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
    write_table(path, columns, [*rows, *new])


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]
) -> None:
    """Write a table in place of an earlier one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write(path, text.getvalue().encode())
