"""Trainings with DeepSpeed's ZeRO-3 in two processes, as those of sharded_ranks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from sharded_ranks import MODELS, RANKS, losses_of, runner_of

OPTIMIZERS = dict(classification='SGD', language='AdamW')
STEPS = 2


def zero(**config: Any) -> dict[str, Any]:
    """Arguments of a :class:`ZeroModel` that shards small parameters too."""
    whole = dict(stage=3, stage3_param_persistence_threshold=0, overlap_comm=True)
    strategy = dict(
        type='mmtransmamba.ZeroStrategy',
        zero_optimization=whole,
        gradient_clipping=1.0,
        config=config,
    )
    return dict(type='mmtransmamba.ZeroModel', strategy=strategy)


def optimizer_of(kind: str) -> str:
    return OPTIMIZERS.get(kind, 'SGD')


def run(rank: int, folder: str, ranks: int = RANKS) -> None:
    """One process of all trainings; it saves what it has looked at."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank))
    os.environ.setdefault('DS_ACCELERATOR', 'cpu')
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/zero', rank=rank, world_size=ranks
    )
    place, found = Path(folder), {}
    for kind in MODELS:
        options = dict(optimizer=optimizer_of(kind), **zero())
        runner = runner_of(kind, place / f'{kind}-two', rank, **options)
        runner.train()
        found[kind] = losses_of(runner)
        found[f'{kind}, parts'] = {
            name: parameter.ds_tensor.numel()
            for name, parameter in runner.model.module.named_parameters()
        }
    half = dict(torch_autocast=dict(enabled=True, dtype='bfloat16'))
    runner = runner_of(
        'language', place / 'half', rank, optimizer='AdamW', **zero(**half)
    )
    runner.train()
    found['half'] = losses_of(runner)
    found['dtypes'] = {p.dtype for p in runner.model.module.parameters()}
    for name, start in (('one', 2 * RANKS), ('two', 2)):
        runner = runner_of(
            'language',
            place / f'language-{name}-resumed',
            rank,
            steps=STEPS,
            resume=place / f'language-{name}' / f'iter_{start}.pth',
            start=start,
            optimizer='AdamW',
            **zero(),
        )
        runner.train()
    torch.save(found, place / f'{rank}.pth')
    torch.distributed.destroy_process_group()
