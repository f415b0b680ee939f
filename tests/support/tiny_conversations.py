"""Conversations about coloured squares, as a user has them in files."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

COLORS = ('red', 'green', 'blue', 'white')


def save_tiny_conversations(folder: str | Path, rows: int = 16) -> dict[str, str]:
    """Rows with an image, with two, and with none, in LLaVA's format.

    Returns:
        ``files`` and ``image_root`` of a ``ConversationDataset``.
    """
    folder = Path(folder)
    (folder / 'images').mkdir(parents=True)
    for color in COLORS:
        Image.new('RGB', (20, 20), color).save(folder / 'images' / f'{color}.png')
    lines = []
    for i in range(rows):
        shown = [COLORS[i % 4], COLORS[i // 4 % 4]][: (1, 0, 2)[i % 3]]
        question = '<image>\n' * len(shown) + f'Q{i}?'
        row = dict(
            id=str(i),
            conversations=[
                {'from': 'human', 'value': question},
                {'from': 'gpt', 'value': ' and '.join(shown) or 'nothing'},
            ],
        )
        if shown:
            row['image'] = [f'{color}.png' for color in shown]
        lines.append(json.dumps(row))
    (folder / 'train.jsonl').write_text('\n'.join(lines) + '\n')
    return dict(files=str(folder / 'train.jsonl'), image_root=str(folder / 'images'))
