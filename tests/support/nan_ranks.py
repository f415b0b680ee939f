"""Two processes of a training, of which the second alone meets NaN."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmtransmamba.engine.hooks import NonFiniteError, NonFiniteHook


class Spoils(nn.Module):
    """Passes its input on, in one process as NaN from the third step on."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.calls = rank, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * torch.nan if self.rank == 1 and self.calls > 2 else x


class Model(BaseModel):
    """A linear layer whose output is spoilt."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(3, 3), Spoils(rank))

    def forward(self, x: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        return dict(loss=self.blocks(x).pow(2).mean())


def run_rank(rank: int, folder: str) -> None:
    """Trains in one process, and writes down what its training ends with."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    torch.manual_seed(0)
    model = MMDistributedDataParallel(Model(rank))
    runner = Runner(
        model,
        str(Path(folder) / 'run'),
        train_dataloader=DataLoader([dict(x=x) for x in torch.randn(8, 3)], 2),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=4),
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01)),
        custom_hooks=[NonFiniteHook()],
        log_level='ERROR',
        experiment_name='two_ranks',
    )
    said = 'nothing'
    try:
        runner.train()
    except NonFiniteError as error:
        said = str(error)
    Path(folder, f'{rank}.txt').write_text(said)
    torch.distributed.destroy_process_group()
