"""A retriever with VideoMamba for videos and CLIP's text tower for captions."""

from __future__ import annotations

import os
from typing import Any

import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from mmtransmamba.models.checkpoint import (
    CheckpointError,
    load_pretrained,
    read_state_dict,
)
from mmtransmamba.models.retrieval.base import TextVideoRetriever
from mmtransmamba.models.retrieval.clip import build_clip
from mmtransmamba.registry import MODELS

_TEXT_PREFIX = 'text_encoder.'


@MODELS.register_module()
class VideoMambaRetriever(TextVideoRetriever):
    """VideoMamba and CLIP's text tower; with distillation, the paper's TransVideoMamba.

    The backbone inherits VideoMamba's weights, for images or videos, through its own
    ``init_cfg=dict(type='Pretrained', checkpoint=...)``. Its class token, or the mean
    of its patch tokens if its ``out_type`` is ``'featmap'``, is projected linearly to
    CLIP's space.

    Args:
        backbone: A video :class:`~mmtransmamba.models.VideoMamba`, or its config.
        clip: Folder of a ``transformers.CLIPModel``, or fields of its config.
        text_checkpoint: Checkpoint of a :class:`CLIP4Clip` whose fine-tuned text tower
            replaces CLIP's as the starting point.
        frozen_text, loss, data_preprocessor, init_cfg: See
            :class:`TextVideoRetriever`.

    Raises:
        ValueError: The backbone is for images, or returns features of several blocks.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        clip: str | os.PathLike | dict[str, Any],
        text_checkpoint: str | os.PathLike | None = None,
        frozen_text: bool = True,
        loss: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        model = build_clip(clip, text_only=True)
        super().__init__(model, frozen_text, loss, data_preprocessor, init_cfg)
        if not isinstance(backbone, nn.Module):
            backbone = MODELS.build(backbone)
        if getattr(backbone, 'temporal_pos_embedding', None) is None:
            raise ValueError(
                f'VideoMambaRetriever: the backbone {type(backbone).__name__} is one '
                'of images; accepted: VideoMamba with num_frames > 1.'
            )
        if len(backbone.out_indices) != 1:
            raise ValueError(
                f'VideoMambaRetriever: out_indices={backbone.out_indices} of the '
                'backbone must be one block, the last by default (-1).'
            )
        self.backbone = backbone
        self.video_projection = nn.Linear(backbone.embed_dims, self.dim, bias=False)
        self.text_checkpoint = text_checkpoint
        self._reset_projection()

    def _reset_projection(self) -> None:
        # As CLIP's own projections.
        width = self.video_projection.in_features
        nn.init.normal_(self.video_projection.weight, std=width**-0.5)

    def init_weights(self) -> None:
        """Initialise the parts that are not CLIP's, and load ``text_checkpoint``.

        mmengine's default would call transformers' method of this name, which
        reinitialises the text tower.
        """
        self.backbone.init_weights()
        self._reset_projection()
        if self.text_checkpoint is not None:
            self._load_text(self.text_checkpoint)

    def _load_text(self, checkpoint: str | os.PathLike) -> None:
        state = {
            key[len(_TEXT_PREFIX) :]: value
            for key, value in read_state_dict(checkpoint).items()
            if key.startswith(_TEXT_PREFIX)
        }
        if not state:
            raise CheckpointError(
                f'text_checkpoint={str(checkpoint)!r} has no tensor whose name starts '
                f'with "{_TEXT_PREFIX}"; accepted: a checkpoint of CLIP4Clip or '
                'VideoMambaRetriever.'
            )
        try:
            report = load_pretrained(self.text_encoder, state)
        except CheckpointError as error:
            raise CheckpointError(
                f'text_checkpoint={str(checkpoint)!r}: {error}'
            ) from error
        print_log(f'Text encoder from {checkpoint}: {report}', 'current')

    def encode_video(self, video: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """See :meth:`TextVideoRetriever.encode_video`.

        Raises:
            ValueError: Frames are masked, but scans read all of them.
        """
        if frame_mask is not None and not bool(frame_mask.all()):
            raise ValueError(
                'VideoMambaRetriever: frame_mask excludes frames, but the scans read '
                'every frame. Sample as many frames of each video instead of padding.'
            )
        feature = self.backbone(video)
        if feature.ndim > 2:
            feature = feature.flatten(2).mean(2)
        return F.normalize(self.video_projection(feature).float(), dim=-1)
