"""Embeddings of videos and their captions in one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import torch
from torch import Tensor
from torch import distributed as dist

from mmtransmamba.models.retrieval.gather import gather_rows


@dataclass
class PairEmbeddings:
    """Embeddings of a batch in which caption i describes video i.

    Attributes:
        video: ``[b, D]``, of length 1.
        text: ``[b, D]``, of length 1.
        scale: Factor that turns cosines into logits, a scalar.
    """

    video: Tensor
    text: Tensor
    scale: Tensor

    @cached_property
    def _gathered(self) -> tuple[Tensor, Tensor, int]:
        # One collective for both, even if several losses request it.
        rows, begin = gather_rows(torch.cat((self.video, self.text), dim=1))
        video, text = rows.chunk(2, dim=1)
        return video, text, begin

    @property
    def begin(self) -> int:
        """Index of this rank's first pair among those of all ranks."""
        return self._gathered[2]

    @property
    def row_weight(self) -> float:
        """Factor that turns a rank's sum over its rows into its part of the mean.

        The mean of these parts over ranks, which DDP takes, is the mean over the rows
        of all ranks, even if their numbers differ.
        """
        distributed = dist.is_available() and dist.is_initialized()
        world_size = dist.get_world_size() if distributed else 1
        return world_size / len(self._gathered[0])

    def logits(self) -> tuple[Tensor, Tensor]:
        """Scaled cosines of this rank's b rows with the N columns of all ranks.

        Returns:
            Text to video and video to text, ``[b, N]`` each, float32.
        """
        videos, texts, _ = self._gathered
        # Cosines times 100 need more than the three digits of half precision.
        with torch.autocast(self.video.device.type, enabled=False):
            return (
                self.scale * self.text @ videos.T,
                self.scale * self.video @ texts.T,
            )


def ids_as_numbers(ids: Sequence[str], device: torch.device) -> Tensor:
    """Numbers that are equal where names are, on every rank: int64 ``[b]``."""
    numbers = [
        int.from_bytes(blake2b(str(name).encode(), digest_size=8).digest(), 'big')
        - 2**63
        for name in ids
    ]
    return torch.tensor(numbers, dtype=torch.int64, device=device)
