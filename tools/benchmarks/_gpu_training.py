"""The part of ``gpu.py`` that trains: steps in bf16 autocast, alone and distilled.

The tiny sizes of a dry run follow from the device, which is the CPU.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from _distillation_overhead import Distillation, overhead
from torch import Tensor, nn

from mmtransmamba.models import VRWKV, PlainMamba, Vim, VMamba
from mmtransmamba.registry import MODELS

ROOT = Path(__file__).resolve().parents[2] / 'configs/image_classification/transmamba'
SIZE = 224
CLASSES = 1000
# DeiT-T is the yardstick, and alone in taking one size of images.
BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    'DeiT-T': lambda size: MODELS.build(
        dict(type='mmpretrain.VisionTransformer', arch='deit-tiny', img_size=size)
    ),
    'PlainMamba-T': lambda size: PlainMamba('t'),
    'PlainMamba-L1': lambda size: PlainMamba('l1'),
    'Vim-T': lambda size: Vim('tiny'),
    'VMamba-T': lambda size: VMamba('vanilla_tiny'),
    'VRWKV-T': lambda size: VRWKV('tiny'),
}
DISTILLERS = {
    'PlainMamba-T': ROOT / 'trans-plain-mamba-t_1xb128_in1k.py',
    'Vim-T': ROOT / 'trans-vim-t_1xb128_in1k.py',
    'VMamba-T': ROOT / 'trans-vmamba-t_1xb32_in1k.py',
    'VRWKV-T': ROOT / 'trans-vrwkv-t_1xb128_in1k.py',
}


def alone(name: str, device: str) -> Iterator[tuple[str, float]]:
    """Images a second of forward, loss, backward and AdamW."""
    dry = device == 'cpu'
    size, batch = (32, 2) if dry else (SIZE, 128)
    model = BACKBONES[name](size).to(device).train()
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(CLASSES, (batch,), device=device)

    def features() -> Tensor:
        x = model(images)[-1]
        return x.flatten(2).mean(2) if x.ndim > 2 else x

    with torch.no_grad():
        head = nn.Linear(features().shape[1], CLASSES, device=device)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()])

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = F.cross_entropy(head(features()), labels)
        loss.backward()
        optimizer.step()
        if not dry:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    _reset_peak(device)
    step()
    times = [step() for _ in range(2 if dry else 20)]
    yield 'images a second', batch / statistics.median(times)
    yield from _peak(device)


def distilled(config: Path, device: str) -> Iterator[tuple[str, float]]:
    """Images a second of a distillation step, and what distillation adds to it."""
    dry = device == 'cpu'
    # Teachers and position embeddings have the size of the config.
    batch, repeat = (1, 1) if dry else (128, 10)
    distillation = Distillation(config, batch, SIZE, device)
    _reset_peak(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        times = distillation.times(repeat)
    seconds = statistics.median(times['distillation_step'])
    yield 'images a second without AdamW', batch / seconds
    yield 'overhead of distillation, %', overhead(times)
    yield from _peak(device)


def _reset_peak(device: str) -> None:
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> Iterator[tuple[str, float]]:
    if device == 'cuda':
        yield 'peak memory, GB', torch.cuda.max_memory_allocated() / 1e9
