"""Sheets of what queries found."""

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mmtransmamba.visualization import FoundClip, contact_sheet, plot_contact_sheet


def clip(right, colour=(30, 60, 200), frames=6):
    return FoundClip(np.full((frames, 20, 20, 3), colour, np.uint8), 'title', right)


def share(path, colour):
    """Part of the pixels of a PNG that have about a colour (RGB)."""
    image = cv2.imread(str(path))[..., ::-1].astype(int)
    return (abs(image - np.array(colour)).max(-1) < 12).mean()


def test_sheet_shows_clips_and_which_are_right(tmp_path):
    path = tmp_path / 'sheet.png'
    answers = {'one query': [clip(False), clip(True)], 'another': [clip(None)]}
    plot_contact_sheet(answers, path)
    blue = share(path, (30, 60, 200))
    assert blue > 0.1
    for colour in (contact_sheet.RIGHT, contact_sheet.WRONG):
        assert share(path, np.array(to_rgb(colour)) * 255) > 0.002
    plot_contact_sheet({'one query': [clip(None)], 'another': []}, path)
    for colour in (contact_sheet.RIGHT, contact_sheet.WRONG):
        assert share(path, np.array(to_rgb(colour)) * 255) == 0


@pytest.mark.parametrize(
    'frames, shown', [(9, [0, 3, 5, 8]), (4, [0, 1, 2, 3]), (1, [0])]
)
def test_frames_of_a_clip(frames, shown):
    pixels = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    strip = contact_sheet._strip(pixels.repeat(5, 1).repeat(6, 2).repeat(3, 3), 4)
    assert strip.shape == (5, 7 * len(shown) - 1, 3)
    assert strip[0, ::7, 0].tolist() == shown
