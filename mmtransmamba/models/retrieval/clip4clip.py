"""CLIP4Clip: CLIP on every frame, averaged over the video."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn

from mmtransmamba.models.retrieval.base import TextVideoRetriever
from mmtransmamba.models.retrieval.clip import CLIPFrameEncoder, build_clip
from mmtransmamba.models.retrieval.temporal import (
    SequentialTransformer,
    mean_over_frames,
)
from mmtransmamba.registry import MODELS

AGGREGATIONS = ('mean', 'transformer')


@MODELS.register_module()
class CLIP4Clip(TextVideoRetriever):
    """CLIP4Clip (Luo et al., 2021) on ``transformers.CLIPModel``.

    Frame embeddings are normalised to length 1 and averaged; the similarity of caption
    and video is the cosine.

    Args:
        clip: Folder of a ``transformers.CLIPModel``, or fields of its config; see
            :func:`~mmtransmamba.models.retrieval.clip.build_clip`.
        aggregation: ``'mean'``, the paper's "meanP"; or ``'transformer'``, the paper's
            "seqTransf": the frames first pass a Transformer with a residual
            connection, initialised from the first layers of CLIP's text tower.
        temporal: Arguments of :class:`SequentialTransformer` besides its width.
        frozen_text, loss, data_preprocessor, init_cfg: See
            :class:`TextVideoRetriever`.

    Raises:
        ValueError: The aggregation does not exist.
    """

    def __init__(
        self,
        clip: str | os.PathLike | dict[str, Any],
        aggregation: str = 'mean',
        temporal: dict[str, Any] | None = None,
        frozen_text: bool = False,
        loss: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if aggregation not in AGGREGATIONS:
            raise ValueError(
                f'CLIP4Clip: aggregation={aggregation!r} must be one of '
                f'{", ".join(AGGREGATIONS)}.'
            )
        model = build_clip(clip)
        super().__init__(model, frozen_text, loss, data_preprocessor, init_cfg)
        self.frame_encoder = CLIPFrameEncoder(model)
        self.temporal = None
        if aggregation == 'transformer':
            self.temporal = SequentialTransformer(self.dim, **(temporal or {}))
            self.temporal.inherit(model.text_model)
        self.train()

    def init_weights(self) -> None:
        """Do nothing: CLIP already has its weights.

        mmengine would call transformers' method of this name, which reinitialises them.
        """

    def encode_video(self, video: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        # [B, 3, T, H, W] to [B * T, 3, H, W]
        frames = self.frame_encoder(video.transpose(1, 2).flatten(0, 1))
        return self.aggregate(frames.unflatten(0, (len(video), -1)), frame_mask)

    def aggregate(self, frames: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Embeddings of videos ``[B, D]`` from those of their frames ``[B, T, D]``."""
        if self.temporal is not None:
            frames = self.temporal(frames, frame_mask)
        return mean_over_frames(frames, frame_mask)
