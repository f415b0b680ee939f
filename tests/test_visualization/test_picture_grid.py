"""A grid of pictures, a column for each model."""

import numpy as np
from PIL import Image

from mmtransmamba.visualization.picture_grid import save_picture_grid


def test_each_entry_has_its_place(tmp_path):
    colours = dict(one=[(255, 0, 0), (0, 255, 0)], two_words=[(0, 0, 255), (9, 9, 9)])

    def draw(axes, colour):
        axes.imshow(np.full((4, 4, 3), colour, np.uint8))

    file = tmp_path / 'grid.png'
    save_picture_grid(file, colours, draw, cell=(2, 2), dpi=50)
    with Image.open(file) as image:
        assert image.size == (200, 200)
        pixels = np.asarray(image.convert('RGB'))
    found = [[tuple(pixels[y, x]) for y in (55, 155)] for x in (50, 150)]
    assert found == list(colours.values())


def test_one_picture_is_a_grid(tmp_path):
    shown = []
    file = tmp_path / 'grid.png'
    save_picture_grid(file, {'a': [1]}, lambda axes, entry: shown.append(entry), (1, 1))
    assert shown == [1] and file.is_file()
