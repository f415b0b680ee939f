"""The input shape that a config implies for its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def input_shape(model: dict[str, Any], sizes: Sequence[int] | None) -> tuple[int, ...]:
    """Shape of one image or video, without the batch.

    Args:
        model: Config of a backbone, or of a model with one.
        sizes: Side, height and width, or frames, height and width; by default the
            backbone's ``img_size`` (and ``num_frames``), or 224.

    Returns:
        ``(channels, (frames,) height, width)``.

    Raises:
        ValueError: ``sizes`` has more than three entries.
    """
    backbone = model.get('backbone', model)
    if sizes is None:
        size = backbone.get('img_size', 224)
        sizes = [size] if isinstance(size, int) else list(size)
        if backbone.get('num_frames', 1) > 1:
            sizes = [backbone['num_frames'], *(sizes * 2)[:2]]
    if len(sizes) > 3:
        raise ValueError(f'--shape {list(sizes)}: accepted are SIDE, H W or T H W.')
    if len(sizes) == 1:
        sizes = [*sizes, *sizes]
    return (backbone.get('in_channels', 3), *sizes)
