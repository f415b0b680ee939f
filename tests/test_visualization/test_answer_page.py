"""The page of pictures, questions and answers."""

import numpy as np
import pytest
from PIL import Image

from mmtransmamba.visualization import AnsweredQuestion, plot_answers
from mmtransmamba.visualization.contact_sheet import RIGHT, WRONG


def count(path, colour):
    pixels = np.asarray(Image.open(path).convert('RGB')).astype(int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((abs(pixels - wanted).max(-1) < 12).sum())


def page(path, right):
    picture = np.full((8, 8, 3), 200, np.uint8)
    said = {'teacher': ('red', True), 'pure Mamba': ('', right)}
    asked = AnsweredQuestion(picture, 'What colour is the ring?', 'red', said)
    plot_answers([asked] * 4, path)


def test_wrong_answers_are_marked(tmp_path):
    page(tmp_path / 'wrong.png', right=False)
    page(tmp_path / 'right.png', right=True)
    assert count(tmp_path / 'wrong.png', WRONG) > 50
    assert count(tmp_path / 'right.png', WRONG) == 0
    assert count(tmp_path / 'right.png', RIGHT) > count(tmp_path / 'wrong.png', RIGHT)


def test_no_question(tmp_path):
    with pytest.raises(ValueError, match='no question to draw'):
        plot_answers([], tmp_path / 'page.png')
