"""The input shape that a config implies for its model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from transformers import AutoConfig


def input_shape(model: dict[str, Any], sizes: Sequence[int] | None) -> tuple[int, ...]:
    """Shape of one image or video, without the batch.

    Args:
        model: Config of a backbone, of a model with one, or of an
            ``EncoderClassifier``.
        sizes: Side, height and width, or frames, height and width; by default the
            backbone's ``img_size`` (and ``num_frames``), that of the encoder's config,
            or 224.

    Returns:
        ``(channels, (frames,) height, width)``.

    Raises:
        ValueError: ``sizes`` has more than three entries.
    """
    backbone = model.get('backbone', model)
    if str(model.get('type')).rpartition('.')[2] == 'EncoderClassifier':
        backbone = _of_encoder(model)
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


def _of_encoder(model: dict[str, Any]) -> dict[str, Any]:
    """Image size and channels of a transformers encoder, under a backbone's names."""
    # Hybrids are registered on import.
    import_module('mmtransmamba.models.vision')
    if model.get('path') is not None:
        config = AutoConfig.from_pretrained(model['path'])
    else:
        fields = dict(model['config'])
        config = AutoConfig.for_model(fields.pop('model_type'), **fields)
    return dict(img_size=config.image_size, in_channels=config.num_channels)
