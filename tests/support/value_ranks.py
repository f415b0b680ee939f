"""Tensors of which each process has a part, with a value that is no number."""

from __future__ import annotations

from pathlib import Path

import torch

from mmtransmamba.models.values import fault_of

ROWS = 4


def run(rank: int, folder: str, values: list[float]) -> None:
    """One of two processes; it saves what it finds, by the place of the value."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    mesh = init_device_mesh('cpu', (2,))
    found = []
    for value in values:
        for row in range(ROWS):
            tensor = torch.ones(ROWS, 3)
            tensor[row, 1] = value
            found.append(fault_of(distribute_tensor(tensor, mesh, [Shard(0)])))
    torch.save(found, Path(folder) / f'{rank}.pth')
    torch.distributed.destroy_process_group()
