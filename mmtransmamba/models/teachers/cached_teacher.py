"""A language teacher whose outputs were recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.models.teachers.token_cache import (
    TokenCache,
    TopLogits,
    dataset_hash,
    sample_key,
)
from mmtransmamba.registry import MODELS


@MODELS.register_module()
class CachedTeacher(nn.Module):
    """Reads the recordings of ``tools/cache_teacher.py`` instead of running a model.

    It has no layers, so only terms on next-token distributions can use it, and it only
    has outputs for the samples of the recorded data set.

    Args:
        folder: Folder of the cache.
        verify: Compare the checksums of all shards on loading.

    Raises:
        FileNotFoundError: The folder does not contain a cache, or lacks a shard.
        ValueError: The cache is incomplete, or a shard has changed.
    """

    def __init__(self, folder: str, verify: bool = True) -> None:
        super().__init__()
        try:
            self.cache = TokenCache(folder, verify)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f'CachedTeacher: {error}') from error
        self.manifest = self.cache.manifest

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **inputs: Any,
    ) -> TopLogits:
        """The recorded outputs for a batch ``[B, L]``; zeros at padding.

        Raises:
            ValueError: A sample is not recorded, or the batch has inputs besides
                tokens, which a recording does not cover.
        """
        others = [name for name, value in inputs.items() if value is not None]
        if position_ids is not None:
            others.append('position_ids')
        if others:
            raise ValueError(
                f'CachedTeacher: the batch has {", ".join(others)}; only teachers of '
                'input_ids with attention_mask are recorded.'
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        shape, k = input_ids.shape, self.manifest.k
        result = TopLogits(
            torch.zeros(*shape, k, dtype=torch.int64),
            torch.zeros(*shape, k, dtype=getattr(torch, self.manifest.dtype)),
            torch.zeros(shape),
        )
        for row, (tokens, kept) in enumerate(
            zip(input_ids.cpu(), mask.bool().cpu(), strict=True)
        ):
            found = self.cache.read(tokens[kept])
            result.ids[row, kept] = found.ids
            result.logits[row, kept] = found.logits
            result.rest[row, kept] = found.rest
        device = input_ids.device
        return TopLogits(
            *(t.to(device) for t in (result.ids, result.logits, result.rest))
        )

    def check_dataset(self, dataset: Iterable[Mapping[str, Tensor]]) -> None:
        """Refuse a data set that is not the recorded one.

        Args:
            dataset: Its samples, see
                :func:`~mmtransmamba.datasets.token_collate.token_sample`.

        Raises:
            ValueError: It has other samples.
        """
        keys = [sample_key(dataset[i]['input_ids']) for i in range(len(dataset))]
        if dataset_hash(keys) != self.manifest.hashes['dataset']:
            raise ValueError(
                f'CachedTeacher: "{self.cache.folder}" was recorded from another data '
                f'set: train_dataloader.dataset has {len(keys)} samples, the cache '
                f'{self.manifest.samples}, and their dataset hashes differ'
            )
