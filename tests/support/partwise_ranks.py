"""Vision models in several processes under ``PartwiseDataParallel``."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.optim import OptimWrapper
from tiny_distillers import LOGITS, batch, build, student_config
from torch import Tensor

from mmtransmamba.engine.partwise_data_parallel import PartwiseDataParallel

STEPS = 3


def model_of(kind: str) -> torch.nn.Module:
    """A distiller, or its student alone."""
    torch.manual_seed(0)
    student = student_config()
    student['backbone']['arch']['drop_path_rate'] = 0.0
    distiller = build(dict(logits=LOGITS), student)
    return distiller if kind == 'distiller' else distiller.student


def train(kind: str, rank: int | None, ranks: int) -> dict[str, Tensor]:
    """The weights after some steps on a process's images, for None on those of all."""
    model = model_of(kind)
    if rank is not None:
        model = PartwiseDataParallel(model)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    # Statistics of batches would differ.
    model.eval()
    for step in range(STEPS):
        inputs, samples = batch(4 * ranks)
        own = slice(None) if rank is None else slice(4 * rank, 4 * (rank + 1))
        images = 120 + 50 * inputs[own].roll(step, -1)
        model.train_step(dict(inputs=images, data_samples=samples[own]), wrapper)
    return getattr(model, 'module', model).state_dict()


def run(rank: int, ranks: int, folder: str) -> None:
    """One process; it saves the weights of each model."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=ranks
    )
    found = {kind: train(kind, rank, ranks) for kind in ('distiller', 'student')}
    torch.save(found, Path(folder) / f'{rank}.pth')
    torch.distributed.destroy_process_group()
