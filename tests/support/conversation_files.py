"""Folders with conversations and images, as data sets come."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image
from tiny_vlms import tiny_processor


def llava_row(number: int, image: str | None = None, answer: str = 'Yes') -> dict:
    """A row of LLaVA's JSON; the question grows with the number."""
    place = '<image>\n' if image else ''
    row = dict(
        id=f'r{number}',
        conversations=[
            {'from': 'human', 'value': f'{place}Is it{" very" * number} red?'},
            {'from': 'gpt', 'value': answer},
        ],
    )
    return row | dict(image=image) if image else row


def write_images(folder: Path, count: int) -> list[str]:
    """Images whose shade of red is their number."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f'{i}.png' for i in range(count)]
    for i, name in enumerate(names):
        Image.new('RGB', (20, 16), (i * 10, 0, 0)).save(folder / name)
    return names


def write_json(path: Path, rows: list) -> str:
    path.write_text(json.dumps(rows, indent=1), encoding='utf-8')
    return str(path)


def write_jsonl(path: Path, rows: list) -> str:
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return str(path)


def write_processor(folder: Path) -> str:
    tiny_processor().save_pretrained(folder)
    return str(folder)
