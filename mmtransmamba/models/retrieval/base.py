"""Base of the text-video retrieval models."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmtransmamba.models.retrieval.clip import CLIPTextEncoder
from mmtransmamba.models.retrieval.pairs import PairEmbeddings
from mmtransmamba.registry import MODELS


class TextVideoRetriever(BaseModel):
    """A model that embeds videos and captions in one space.

    A subclass implements :meth:`encode_video`.

    Args:
        clip: The ``transformers.CLIPModel`` whose text tower is used.
        frozen_text: Freeze the text tower's weights.
        loss: Config of the loss, by default
            :class:`~mmtransmamba.models.retrieval.ContrastiveLoss`, with CLIP's initial
            scale.
        data_preprocessor: By default :class:`RetrievalDataPreprocessor`.
        init_cfg: mmengine initialisation config.

    Attributes:
        dim: Width D of the embeddings.
    """

    def __init__(
        self,
        clip: nn.Module,
        frozen_text: bool = False,
        loss: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            data_preprocessor or dict(type='mmtransmamba.RetrievalDataPreprocessor'),
            init_cfg,
        )
        self.text_encoder = CLIPTextEncoder(clip, frozen_text)
        self.dim = self.text_encoder.dim
        self.contrast = MODELS.build(loss or dict(type='mmtransmamba.ContrastiveLoss'))
        self.contrast.start_from(clip.logit_scale)

    @abstractmethod
    def encode_video(self, video: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """Embeddings of videos.

        Args:
            video: ``[B, 3, T, H, W]``, normalised.
            frame_mask: ``[B, T]``, true for frames that count; None counts all.

        Returns:
            ``[B, D]``, of length 1, float32.
        """

    def encode_text(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Embeddings ``[B, D]`` of captions ``[B, L]``, of length 1, float32."""
        return F.normalize(self.text_encoder(input_ids, attention_mask).float(), dim=-1)

    def embed_pairs(
        self, inputs: Tensor, data_samples: dict[str, Any]
    ) -> PairEmbeddings:
        """Embeddings of videos with one caption each; see :meth:`forward`.

        Raises:
            ValueError: The numbers of captions and videos differ.
        """
        ids = (data_samples or {}).get('input_ids')
        if ids is None or len(ids) != len(inputs):
            found = 'none' if ids is None else f'input_ids of {len(ids)}'
            raise ValueError(
                f'{type(self).__name__}: {len(inputs)} videos must come with one '
                f'caption each (input_ids, attention_mask), there are {found}. Data '
                'sets give these unless test_mode=True.'
            )
        return PairEmbeddings(
            video=self.encode_video(inputs, data_samples.get('frame_mask')),
            text=self.encode_text(
                data_samples['input_ids'], data_samples.get('attention_mask')
            ),
            scale=self.contrast.scale(),
        )

    def pair_losses(
        self, pairs: PairEmbeddings, data_samples: dict[str, Any]
    ) -> dict[str, Tensor]:
        """``loss`` of a batch, and its ``logit_scale`` for the log."""
        loss = self.contrast(pairs, data_samples.get('video_id'))
        return dict(loss=loss, logit_scale=pairs.scale.detach())

    def forward(
        self,
        inputs: Tensor,
        data_samples: dict[str, Any] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Train, evaluate, or embed videos.

        Args:
            inputs: Normalised videos ``[B, 3, T, H, W]``.
            data_samples: Data for the videos. ``input_ids`` and ``attention_mask``
                ``[B, L]`` of one caption each; or, for ``'predict'``, ``captions``, per
                video a dict of both, ``[n, L]``. Also ``video_id``, B names, and
                ``frame_mask`` ``[B, T]``.
            mode: ``'loss'``, ``'predict'`` or ``'tensor'``.

        Returns:
            The losses; or per video a dict of ``video_feat`` ``[D]``, ``text_feat``
            ``[n, D]`` and ``video_id`` if it has one; or embeddings of the videos
            ``[B, D]``.
        """
        if inputs.ndim != 5:
            raise ValueError(
                f'{type(self).__name__}: videos must be [B, 3, T, H, W], not '
                f'{list(inputs.shape)}.'
            )
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.encode_video(inputs, (data_samples or {}).get('frame_mask'))
        raise ValueError(
            f"{type(self).__name__}: mode={mode!r} must be 'loss', 'predict' or "
            "'tensor'."
        )

    def loss(self, inputs: Tensor, data_samples: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of one step; see :meth:`forward`."""
        return self.pair_losses(self.embed_pairs(inputs, data_samples), data_samples)

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: dict[str, Any]) -> list[dict]:
        """The data for a metric on each video; see :meth:`forward`."""
        videos = self.encode_video(inputs, data_samples.get('frame_mask'))
        if 'captions' in data_samples:
            ids, mask, counts = self.text_encoder.collate(data_samples['captions'])
            texts = self.encode_text(ids, mask).split(counts)
        else:
            texts = self.encode_text(
                data_samples['input_ids'], data_samples.get('attention_mask')
            ).split(1)
        outputs = [
            dict(video_feat=v, text_feat=t) for v, t in zip(videos, texts, strict=True)
        ]
        if 'video_id' in data_samples:
            for output, name in zip(outputs, data_samples['video_id'], strict=True):
                output['video_id'] = name
        return outputs
