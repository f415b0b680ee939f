"""CLIP4Clip as a frozen teacher of video models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.retrieval.clip4clip import CLIP4Clip
from mmtransmamba.models.retrieval.data_preprocessor import CLIP_MEAN, CLIP_STD
from mmtransmamba.models.retrieval.pairs import PairEmbeddings
from mmtransmamba.models.taps import LayerFeature
from mmtransmamba.models.teachers.base import BaseTeacher, TeacherOutput
from mmtransmamba.models.teachers.layout import find_layout
from mmtransmamba.models.teachers.loading import (
    RANDOM,
    accept_random,
    load_teacher_checkpoint,
)
from mmtransmamba.models.teachers.vit_names import to_canonical
from mmtransmamba.registry import MODELS


@dataclass
class RetrievalTeacherOutput(TeacherOutput):
    """Outputs of CLIP4Clip for a batch.

    Attributes:
        layers: Patch tokens of all frames after each block of the vision tower,
            ``[B, T * H * W, C]`` on the grid (T, H, W).
        feature: Embeddings of the videos ``[B, D]``, of length 1.
        logits: None.
        pairs: Embeddings of videos and captions; None without captions.
    """

    pairs: PairEmbeddings | None = None


@MODELS.register_module()
class CLIP4ClipTeacher(BaseTeacher):
    """A frozen :class:`CLIP4Clip`.

    Args:
        model: CLIP4Clip, or its config.
        checkpoint: File to load into it, for example that of a Runner. It is required
            if ``clip`` is not a folder; ``'random'`` selects random weights.
        layers: Dotted names of the vision tower's submodules whose outputs are the
            layers; None finds the blocks.
        mean: Per channel, 0..255; by default CLIP's.
        std: As ``mean``.
        input_size: See :class:`BaseTeacher`.
        dtype: See :class:`BaseTeacher`.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        CheckpointError: The checkpoint does not fit the model.
    """

    def __init__(
        self,
        model: dict[str, Any] | CLIP4Clip,
        checkpoint: str | os.PathLike | None = None,
        layers: Sequence[str] | None = None,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        input_size: int | Sequence[int] | None = None,
        dtype: str = 'float32',
    ) -> None:
        # For a model in memory, the caller is responsible for the weights.
        random = False
        if not isinstance(model, nn.Module):
            random = isinstance(model.get('clip'), dict)
            model = MODELS.build(model)
        if not isinstance(model, CLIP4Clip):
            raise ValueError(
                f'CLIP4ClipTeacher: model is {type(model).__name__}; accepted: '
                'CLIP4Clip or its config.'
            )
        if checkpoint not in (None, RANDOM):
            load_teacher_checkpoint(model, checkpoint)
        elif random:
            accept_random('CLIP4ClipTeacher', checkpoint)
        tower = model.frame_encoder.vision_model
        super().__init__(
            model=model,
            root=tower,
            layout=find_layout(tower, layers, ('post_layernorm',)),
            mean=mean,
            std=std,
            native_size=model.frame_encoder.image_size,
            input_size=input_size,
            dtype=dtype,
        )

    def run(self, images: Tensor) -> None:
        self.model.frame_encoder.pooled(images)

    @torch.no_grad()
    def forward(
        self, images: Tensor, data_samples: dict[str, Any] | None = None
    ) -> RetrievalTeacherOutput:
        """Features of videos, and of their captions.

        Args:
            images: RGB videos ``[B, 3, T, H, W]`` on the scale 0..255; ``[B, 3, H, W]``
                are treated as videos of one frame.
            data_samples: ``input_ids``, ``attention_mask`` and ``frame_mask`` as for
                :meth:`TextVideoRetriever.forward`.

        Raises:
            ValueError: See :meth:`BaseTeacher.forward`.
        """
        samples = data_samples or {}
        if images.ndim == 4:
            images = images.unsqueeze(2)
        batch_shape = (images.shape[0], images.shape[2])
        output = super().forward(images.transpose(1, 2).flatten(0, 1))
        layers = tuple(
            LayerFeature(
                layer.tokens.unflatten(0, batch_shape).flatten(1, 2),
                (batch_shape[1], *layer.grid),
            )
            for layer in output.layers
        )
        pooled = output.feature.to(self.dtype)
        frames = self.model.frame_encoder.visual_projection(pooled)
        video = self.model.aggregate(
            frames.unflatten(0, batch_shape), samples.get('frame_mask')
        )
        pairs = None
        if 'input_ids' in samples:
            text = self.model.encode_text(
                samples['input_ids'], samples.get('attention_mask')
            )
            pairs = PairEmbeddings(video, text, self.model.contrast.scale().float())
        return RetrievalTeacherOutput(layers, video, None, pairs)

    def canonical_state_dict(self) -> dict[str, Tensor]:
        """The vision tower's weights under timm's ViT names."""
        return to_canonical(self.model.frame_encoder.vision_model.state_dict())
