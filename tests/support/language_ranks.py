"""A distiller in several processes, for the tests of its data parallelism."""

from __future__ import annotations

from pathlib import Path

import torch
from language_models import make_hybrid, make_teacher, tokens
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmtransmamba.engine.partwise_data_parallel import PartwiseDataParallel
from mmtransmamba.transfer import LanguageDistiller

ITERATIONS = 4
TERMS = dict(
    kl=dict(type='mmtransmamba.TokenKLTerm'),
    layer=dict(type='mmtransmamba.ForcedLayerTerm'),
)


def batches(rank: int | None, ranks: int) -> list[dict[str, Tensor]]:
    """The batches of a process, or for None those of all together."""
    found = []
    for iteration in range(ITERATIONS):
        parts = [tokens(seed=iteration * ranks + r) for r in range(ranks)]
        if rank is None:
            found.append({key: torch.cat([p[key] for p in parts]) for key in parts[0]})
        else:
            found.append(parts[rank])
    return found


def train(rank: int | None, ranks: int) -> dict[str, Tensor]:
    """The student after some steps with accumulation and clipping."""
    teacher = make_teacher()
    # Each process would begin elsewhere, were the first one's weights not sent round.
    student = make_hybrid(teacher, seed=rank or 0)
    model: nn.Module = LanguageDistiller(student, teacher, TERMS)
    if rank is not None:
        model = PartwiseDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = OptimWrapper(
        optimizer, accumulative_counts=2, clip_grad=dict(max_norm=0.5)
    )
    wrapper.initialize_count_status(model, 0, ITERATIONS)
    model.train()
    for batch in batches(rank, ranks):
        model.train_step(batch, wrapper)
    return student.state_dict()


def run(rank: int, ranks: int, folder: str) -> None:
    """One process; it saves its student."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=ranks
    )
    torch.save(train(rank, ranks), Path(folder) / f'{rank}.pth')
    torch.distributed.destroy_process_group()
