"""Batches of a step that have few tokens or many, and models that learn from them."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from language_models import make_hybrid, make_teacher, teacher_config, tokens
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmtransmamba.engine.partwise_data_parallel import PartwiseDataParallel
from mmtransmamba.models.trainable import CausalLM
from mmtransmamba.transfer import LanguageDistiller

TERMS = dict(
    kl=dict(type='mmtransmamba.TokenKLTerm', temperature=2.0),
    task=dict(type='mmtransmamba.NextTokenTerm'),
    hidden=dict(type='mmtransmamba.HiddenStatesTerm'),
    mixer=dict(type='mmtransmamba.MixerOutputTerm'),
    layer=dict(type='mmtransmamba.ForcedLayerTerm'),
)
LENGTH = 12
# Of each batch how many tokens are learned, and how many are no padding.
SIZES = [(1, 4), (11, 12), (0, 9), (5, 7)]


def model_of(name: str, **options) -> nn.Module:
    """A causal model, or a distiller with the terms whose names are joined by '+'."""
    torch.manual_seed(0)
    if name == 'causal':
        return CausalLM(config=teacher_config(), **options).train()
    teacher = make_teacher()
    terms = {term: TERMS[term] for term in name.split('+')}
    return LanguageDistiller(make_hybrid(teacher), teacher, terms, **options).train()


def batches(packed: bool = False) -> list[dict[str, Tensor]]:
    """A row each, of :data:`SIZES`."""
    found = []
    for seed, (learned, kept) in enumerate(SIZES):
        batch = tokens(1, LENGTH, seed)
        batch['labels'][:, : kept - learned] = -100
        batch['labels'][:, kept:] = -100
        if packed:  # two sequences in a row; padding is one, too
            batch['attention_mask'][:] = 1
            batch['position_ids'] = torch.arange(LENGTH)[None].clone()
            batch['position_ids'][:, kept - 2 :] -= kept - 2
            batch['labels'][:, kept - 2] = -100
        else:
            batch['attention_mask'][:, kept:] = 0
        found.append(batch)
    return found


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One batch of the rows of several."""
    return {key: torch.cat([p[key] for p in parts]) for key in parts[0]}


def train(
    model: nn.Module, data: list[dict[str, Tensor]], accumulate: int = 1
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """The state of a copy after training on batches in turn, and what was logged."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.5)
    wrapper = OptimWrapper(optimizer, accumulative_counts=accumulate)
    wrapper.initialize_count_status(model, 0, len(data))
    logs = [model.train_step(copy.deepcopy(batch), wrapper) for batch in data]
    return getattr(model, 'module', model).state_dict(), [log for log in logs if log]


RUNS = {
    f'{name} {wrapper} {accumulate}': (name, wrapper, accumulate)
    for name, wrapper, accumulate in [
        ('causal', 'ddp', 1),
        ('kl+hidden', 'ddp', 1),
        ('causal', 'partwise', 1),
        ('causal', 'partwise', 2),
        ('kl+layer', 'partwise', 1),
        ('kl+layer', 'partwise', 2),
    ]
}


def run_rank(rank: int, ranks: int, folder: str) -> None:
    """One process, which has every second batch; saves the result of each run."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=ranks
    )
    own = batches()[rank::ranks]
    results = {}
    for key, (name, kind, accumulate) in RUNS.items():
        model = model_of(name)
        wrapped = (
            MMDistributedDataParallel(model, find_unused_parameters=False)
            if kind == 'ddp'
            else PartwiseDataParallel(model)
        )
        results[key] = _train_wrapped(wrapped, own, accumulate)
    ddp = MMDistributedDataParallel(model_of('causal'))
    try:
        _train_wrapped(ddp, own, 2)
    except ValueError as error:
        results['refused'] = str(error)
    torch.save(results, Path(folder) / f'{rank}.pth')
    torch.distributed.destroy_process_group()


def _train_wrapped(model, data, accumulate):
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    wrapper = OptimWrapper(optimizer, accumulative_counts=accumulate)
    wrapper.initialize_count_status(model, 0, len(data))
    logs = [model.train_step(batch, wrapper) for batch in data]
    return model.module.state_dict(), [log for log in logs if log]
