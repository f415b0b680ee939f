"""Pictures in a grid, a column for each model, to compare what models see in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtransmamba.visualization.curves import _pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def save_picture_grid(
    path: str | Path,
    columns: Mapping[str, Sequence[Any]],
    draw: Callable[[Axes, Any], None],
    cell: tuple[float, float],
    dpi: int = 100,
) -> None:
    """Draw a grid of pictures into a file.

    Args:
        path: The file; its ending is the format.
        columns: Title of each column, with as many entries as there are rows. An
            underscore in a title becomes a new line.
        draw: Draws an entry.
        cell: Width and height of an entry in inches.
        dpi: Pixels per inch.
    """
    pyplot = _pyplot()
    rows = len(next(iter(columns.values())))
    figure, grid = pyplot.subplots(
        rows,
        len(columns),
        figsize=(cell[0] * len(columns), cell[1] * rows),
        squeeze=False,
        layout='constrained',
    )
    for (title, entries), column in zip(columns.items(), grid.T, strict=True):
        column[0].set_title(title.replace('_', '\n'), size=8)
        for axes, entry in zip(column, entries, strict=True):
            axes.set_axis_off()
            draw(axes, entry)
    figure.savefig(path, dpi=dpi)
    pyplot.close(figure)
