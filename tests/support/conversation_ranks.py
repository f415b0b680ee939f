"""A set of conversations in several processes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import DataLoader

from mmtransmamba.datasets.conversations import (
    ConversationDataset,
    LengthGroupedSampler,
    collate_conversations,
)


def run(rank: int, ranks: int, folder: str) -> None:
    """One process; it saves its batches and what it reports of bad samples."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=ranks
    )
    dataset = ConversationDataset(
        f'{folder}/rows.json', f'{folder}/processor', max_bad=0.5
    )
    sampler = LengthGroupedSampler(dataset, batch_size=2)  # the seed is agreed upon
    loader = DataLoader(dataset, 2, sampler=sampler, collate_fn=collate_conversations)
    batches = [batch.get('pixel_values', torch.empty(0)) for batch in loader]
    found = dict(
        order=list(sampler),
        images=[len(pixels) for pixels in batches],
        own=sum(dataset.bad_samples.counts(everywhere=False).values()),
        report=dataset.bad_samples.report(),
    )
    torch.save(found, Path(folder) / f'{rank}.pth')
    torch.distributed.destroy_process_group()
