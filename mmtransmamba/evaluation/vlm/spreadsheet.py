"""Writing of the tables that evaluation servers accept."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_MAIN = 'http://schemas.openxmlformats.org/spreadsheetml/2006/main'
_OFFICE = 'http://schemas.openxmlformats.org/officeDocument/2006/relationships'
_PACKAGE = 'http://schemas.openxmlformats.org/package/2006'
_KIND = 'application/vnd.openxmlformats-officedocument.spreadsheetml'
_PARTS = {
    '[Content_Types].xml': (
        f'<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{_KIND}.sheet.main+xml"/>'
        '<Override PartName="/xl/worksheets/sheet1.xml" ContentType='
        f'"{_KIND}.worksheet+xml"/></Types>'
    ),
    '_rels/.rels': (
        f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
        f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
    ),
    'xl/workbook.xml': (
        f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>'
        '<sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>'
    ),
    'xl/_rels/workbook.xml.rels': (
        f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
        f'Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>'
    ),
}
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
# XML does not allow these characters; Excel writes them as _x0007_.
_NO_XML = re.compile('[\x00-\x08\x0b\x0c\x0d\x0e-\x1f\ud800-\udfff\ufffe\uffff]')
SUFFIXES = ('.xlsx', '.tsv')


def write_table(
    path: str | Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write a table with named columns.

    Args:
        path: ``.xlsx``, of one sheet, or ``.tsv``.
        columns: Column names, in order.
        rows: Text or integers by column; missing cells are left empty.

    Raises:
        ValueError: The suffix is not supported.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f'{path} must end with one of {", ".join(SUFFIXES)} to be a table.'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.tsv':
        with path.open('w', encoding='utf-8', newline='') as file:
            writer = csv.DictWriter(
                file,
                columns,
                delimiter='\t',
                lineterminator='\n',
                extrasaction='ignore',
            )
            writer.writeheader()
            writer.writerows(rows)
        return
    table = [dict(zip(columns, columns, strict=True)), *rows]
    lines = ''.join(
        f'<row r="{number}">{"".join(_cells(row, columns, number))}</row>'
        for number, row in enumerate(table, 1)
    )
    sheet = f'<worksheet xmlns="{_MAIN}"><sheetData>{lines}</sheetData></worksheet>'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in (_PARTS | {'xl/worksheets/sheet1.xml': sheet}).items():
            archive.writestr(name, _HEAD + content)


def _cells(row: Mapping[str, Any], columns: Sequence[str], number: int) -> list[str]:
    cells = []
    for place, column in enumerate(columns):
        value = row.get(column)
        where = f'{_column_name(place)}{number}'
        if isinstance(value, int):
            cells.append(f'<c r="{where}"><v>{value}</v></c>')
        elif value:
            text = _NO_XML.sub(lambda found: f'_x{ord(found[0]):04X}_', str(value))
            cells.append(
                f'<c r="{where}" t="inlineStr"><is><t xml:space="preserve">'
                f'{escape(text)}</t></is></c>'
            )
    return cells


def _column_name(place: int) -> str:
    """``A`` to ``Z``, ``AA`` and so on."""
    name = ''
    place += 1
    while place:
        place, letter = divmod(place - 1, 26)
        name = chr(65 + letter) + name
    return name
