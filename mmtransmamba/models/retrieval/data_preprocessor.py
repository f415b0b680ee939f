"""Conversion of collated videos and captions to the models' inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor

from mmtransmamba.registry import MODELS

CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)


@MODELS.register_module()
class RetrievalDataPreprocessor(BaseDataPreprocessor):
    """Moves a batch to the device and normalises its videos.

    Args:
        mean: Per channel in RGB order, on the scale 0..255; CLIP's by default.
        std: Likewise.
        non_blocking: See mmengine's ``BaseDataPreprocessor``.

    Attributes:
        channel_order: Channel order of the output videos.

    Raises:
        ValueError: ``mean`` and ``std`` differ in length, or a value of ``std`` is not
            positive.
    """

    channel_order = 'rgb'
    # mmengine's name; a distiller undoes the normalisation if it is true.
    _enable_normalize = True

    def __init__(
        self,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        if len(mean) != len(std):
            raise ValueError(
                f'RetrievalDataPreprocessor: mean={list(mean)} and std={list(std)} '
                'must have one number per channel each.'
            )
        if min(std, default=0) <= 0:
            raise ValueError(
                f'RetrievalDataPreprocessor: std={list(std)} must be positive.'
            )
        for name, values in (('mean', mean), ('std', std)):
            tensor = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Prepare a batch.

        Args:
            data: ``video``, ``[B, C, T, H, W]`` or a list of ``[C, T, H, W]``, of any
                dtype on the scale 0..255, and the data for the videos: captions and
                names.
            training: Not used.

        Returns:
            ``inputs``, the normalised videos in float32, and ``data_samples``, a dict
            of all other data.

        Raises:
            ValueError: There are no videos, or they have another shape.
        """
        samples = dict(self.cast_data(data))
        if 'video' not in samples:
            raise ValueError(
                f'RetrievalDataPreprocessor: a batch of {", ".join(samples)} has no '
                'video; collate_video_text makes it, as collate_fn of the dataloader.'
            )
        video = samples.pop('video')
        if isinstance(video, list | tuple):
            video = torch.stack(list(video))
        if video.ndim != 5 or video.shape[1] != len(self.mean):
            raise ValueError(
                'RetrievalDataPreprocessor: video must be '
                f'[B, {len(self.mean)}, T, H, W], not {list(video.shape)}.'
            )
        inputs = (video.float() - self.mean) / self.std
        return dict(inputs=inputs, data_samples=samples)
