"""Vision-language models in several processes, of which one has no images."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from tiny_llavas import enlarge, learning_batch
from tiny_vlms import tiny_llava
from torch import Tensor

from mmtransmamba.engine.partwise_data_parallel import PartwiseDataParallel
from mmtransmamba.models.trainable import VisionLanguageModel
from mmtransmamba.transfer import LanguageDistiller
from mmtransmamba.transfer.convert import convert

KINDS = ('teacher', 'distiller', 'partwise')
STEPS = 3


def train(kind: str, rank: int | None, ranks: int = 2) -> dict[str, Tensor]:
    """The trained model after some steps; with ``rank=None`` of one process alone.

    The last of the processes has no image in any batch.
    """
    teacher = enlarge(tiny_llava())
    if kind == 'teacher':
        config = teacher.config.to_dict()
        model = VisionLanguageModel(config=config, trains=['connector', 'mlp'])
        model.lm.load_state_dict(teacher.state_dict())
    else:
        student, _ = convert(teacher, [1], init='vkq')
        terms = dict(
            kl=dict(type='mmtransmamba.TokenKLTerm'),
            layer=dict(type='mmtransmamba.ForcedLayerTerm'),
        )
        model = LanguageDistiller(student, teacher, terms, 'matvlm')
    core = model
    if rank is not None and kind == 'partwise':
        model = PartwiseDataParallel(model)
    elif rank is not None:
        model = MMDistributedDataParallel(model)
    model.train()
    wrapper = OptimWrapper(torch.optim.SGD(core.parameters(), lr=0.02))
    for step in range(STEPS):
        parts = [
            learning_batch((6, 6), images=i + 1 < ranks, seed=step * ranks + i)
            for i in range(ranks)
        ]
        if rank is not None:
            model.train_step(parts[rank], wrapper)
            continue
        # The mean over the processes of their losses.
        losses = [core(**part, mode='loss') for part in parts]
        wrapper.update_params(sum(sum(part.values()) for part in losses) / ranks)
    return core.state_dict()


def run(rank: int, ranks: int, folder: str) -> None:
    """One process; it saves what it has trained."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=ranks
    )
    for kind in KINDS:
        torch.save(train(kind, rank, ranks), Path(folder) / f'{kind}-{rank}.pth')
    torch.distributed.destroy_process_group()
