"""A made-up easy-VQA set of two pictures."""

import io
import json

import numpy as np
from PIL import Image

QUESTIONS = [
    ['what color is the shape?', 'blue', 0],
    ['what shape is in the image?', 'triangle', 0],
    ['what shape is in the image?', 'circle', 1],
    ['is there not a circle?', 'no', 1],
]


def write_easy_vqa(folder, split='train', count=2, rows=QUESTIONS):
    """Write a split with pictures of one colour and some questions."""
    files = []
    for i in range(count):
        stream = io.BytesIO()
        Image.new('RGB', (64, 64), (0, 0, 255 - i)).save(stream, 'PNG')
        files.append(np.frombuffer(stream.getvalue(), np.uint8))
    offsets = np.cumsum([0, *map(len, files)])
    np.savez(folder / f'{split}_images.npz', png=np.concatenate(files), offsets=offsets)
    (folder / f'{split}_questions.json').write_text(json.dumps(rows))
