"""Contact sheets of the clips found by queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmtransmamba.visualization.curves import _pyplot

RIGHT, WRONG = '#2a9d3a', '#c23b3b'


@dataclass
class FoundClip:
    """One answer to a query.

    Attributes:
        frames: uint8 ``[T, H, W, 3]``.
        title: Text above the clip.
        right: Whether it is the requested clip; None if unknown.
    """

    frames: np.ndarray
    title: str
    right: bool | None = None


def plot_contact_sheet(
    answers: dict[str, Sequence[FoundClip]], path: str | Path, num_frames: int = 4
) -> None:
    """Draw the clips that each query found, best first, into a PNG.

    Args:
        answers: Clips by query; each row of the sheet is one query.
        path: The PNG to write.
        num_frames: Frames to show of each clip, including the first and the last.
    """
    pyplot = _pyplot()
    columns = max(map(len, answers.values()))
    figure, grid = pyplot.subplots(
        len(answers),
        columns,
        figsize=(2.6 * columns, 1.15 * len(answers)),
        squeeze=False,
        layout='constrained',
    )
    # Room for the queries, above the first row and between the others.
    top = 0.27 / figure.get_figheight()
    figure.get_layout_engine().set(hspace=0.25, rect=(0, 0, 1, 1 - top))
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (query, clips) in zip(grid, answers.items(), strict=True):
        text = row[0].text(
            0, 1.45, query, transform=row[0].transAxes, weight='bold', size=9
        )
        text.set_in_layout(False)  # otherwise a long text widens the first column
        for axes, clip in zip(row, clips, strict=False):
            axes.set_axis_on()
            axes.imshow(_strip(clip.frames, num_frames))
            axes.set(xticks=[], yticks=[])
            axes.set_title(clip.title, size=7, pad=2)
            if clip.right is not None:
                for spine in axes.spines.values():
                    spine.set(color=RIGHT if clip.right else WRONG, linewidth=2.5)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _strip(frames: np.ndarray, count: int) -> np.ndarray:
    """Frames side by side, with a white line between them: uint8 ``[H, W', 3]``."""
    chosen = (
        np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    )
    height, width = frames.shape[1:3]
    line = max(1, width // 32)
    parts = []
    for index in chosen:
        parts += [np.full((height, line, 3), 255, np.uint8), frames[index]]
    return np.concatenate(parts[1:], axis=1)
