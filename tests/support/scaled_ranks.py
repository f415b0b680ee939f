"""Steps in float16 with loss scaling in two processes, one of which overflows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmtransmamba.compat import is_sharded
from mmtransmamba.engine.optimizers import ScaledOptimWrapper
from mmtransmamba.engine.sharding import FullyShardedModel

RANKS = 2
SCALE = 2.0**10
# The first row's gradient overflows when it is scaled, in the second step.
FACTORS = ([1.0, 2.0, 3.0, 4.0], [1e36, 2.0, 3.0, 4.0], [1.0, 0.5, 3.0, 4.0])


class Toy(BaseModel):
    """Linear layers, and a scalar that FSDP leaves whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.gain = nn.Parameter(torch.tensor(1.5))

    def forward(self, inputs: Tensor, factors: Tensor, mode: str = 'loss') -> Any:
        hidden = self.second(self.first(inputs) * self.gain).float()
        # The loss is finite; only the gradient of one row is large.
        small = hidden * factors.clamp(max=9)
        large = (hidden - hidden.detach()) * (factors - factors.clamp(max=9))
        return dict(loss=small.mean() + large.mean())


def batch(step: int, rank: int | None) -> dict[str, Tensor]:
    """The inputs of a process, or for None of both."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(2 * RANKS, 4, generator=generator)
    inputs = inputs if rank is None else inputs[2 * rank : 2 * rank + 2]
    return dict(inputs=inputs, factors=torch.tensor(FACTORS[step]))


def whole(parameter: Tensor) -> Tensor:
    value = parameter.detach()
    return value.full_tensor() if is_sharded(value) else value.clone()


def train(rank: int | None) -> list[dict[str, Any]]:
    """Weights, scale and local overflow after each step."""
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = dict(init_scale=SCALE, growth_interval=1000)
    wrapper = ScaledOptimWrapper(
        loss_scale=options, optimizer=optimizer, clip_grad=dict(max_norm=1.0)
    )
    step = model
    if rank is not None:
        step = FullyShardedModel(model)
        step.shard(wrapper, 'cpu')
    wrapper.initialize_count_status(step, 0, len(FACTORS))
    found = []
    for number in range(len(FACTORS)):
        seen = []
        handle = None
        if rank is not None:
            weight = model.second.weight
            handle = weight.register_post_accumulate_grad_hook(
                lambda p, seen=seen: seen.append(
                    bool(p.grad.to_local().isfinite().all())
                )
            )
        step.train_step(batch(number, rank), wrapper)
        if handle is not None:
            handle.remove()
        weights = {name: whole(p) for name, p in model.named_parameters()}
        scale = wrapper.loss_scaler.get_scale()
        found.append(dict(weights=weights, scale=scale, finite=seen))
    found.append(wrapper.loss_scaler.state_dict())
    return found


def run(rank: int, folder: str) -> None:
    """One process; it saves what it has seen."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=RANKS
    )
    torch.save(train(rank), Path(folder) / f'{rank}.pth')
    torch.distributed.destroy_process_group()
