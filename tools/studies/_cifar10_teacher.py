"""What ``cifar10_teacher.py`` does: cut DeiT-Tiny, train it, keep the weights."""

from __future__ import annotations

import argparse
import logging
from math import isqrt
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from safetensors.torch import save_file
from torch import Tensor

from mmtransmamba.apis.configs import read_config
from mmtransmamba.apis.experiment import run_experiment
from mmtransmamba.models.checkpoint import read_state_dict
from mmtransmamba.models.pos_embed import resize_pos_embed
from mmtransmamba.models.teachers.vit_names import from_canonical, to_canonical
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.launch import find_resumable
from mmtransmamba.utils.log_levels import at_level

CONFIG = Path(__file__).absolute().parents[2] / 'configs/quickstart/cifar10_teacher.py'
DATASETS = (
    'train_dataloader.dataset.dataset',
    'val_dataloader.dataset',
    'test_dataloader.dataset',
)


def smaller_patches(kernel: Tensor, patch: int) -> Tensor:
    """A patch embedding for images that are so many times smaller.

    Args:
        kernel: ``[C, 3, P, P]``.
        patch: New size of a patch, a divisor of P.

    Returns:
        The kernel ``[C, 3, patch, patch]`` that gives of an image what the old one
        gives of the image with every pixel repeated ``P / patch`` times both ways.
    """
    factor = kernel.shape[-1] // patch
    channels = kernel.shape[:2]
    return kernel.reshape(*channels, patch, factor, patch, factor).sum((3, 5))


def cut(teacher: Path, model: torch.nn.Module) -> None:
    """Give a ViT of mmpretrain the weights of a larger one that it has a place for.

    Blocks beyond its depth and the head of the other classes are left out.
    """
    backbone = model.backbone
    state = to_canonical(read_state_dict(teacher))
    depth = len(backbone.layers)
    state = {
        name: value
        for name, value in state.items()
        if not name.startswith('head')
        and not (name.startswith('blocks.') and int(name.split('.')[1]) >= depth)
    }
    patch = backbone.patch_embed.projection.kernel_size[0]
    weight = 'patch_embed.proj.weight'
    state[weight] = smaller_patches(state[weight], patch)
    side = isqrt(state['pos_embed'].shape[1] - 1)
    state['pos_embed'] = resize_pos_embed(
        state['pos_embed'], (side, side), tuple(backbone.patch_resolution), lambda _: 0
    )
    own = backbone.state_dict()
    backbone.load_state_dict(from_canonical(state, own))


def start_file(args: argparse.Namespace, cfg: Config) -> Path:
    """File of the model before its training."""
    path = args.work_dir / 'start.pth'
    if not path.is_file():
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(cfg.model)
        with at_level(logging.WARNING, MMLogger.get_current_instance()):
            model.init_weights()
        cut(args.data / 'deit_tiny' / 'model.safetensors', model)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dict(state_dict=model.state_dict()), path)
    return path


def run(args: argparse.Namespace) -> None:
    """Train, and write the weights."""
    torch.set_num_threads(args.threads)
    start = start_file(args, read_config(CONFIG))
    options = {'load_from': str(start), 'randomness.seed': 0}
    for name in DATASETS:
        options[f'{name}.data_root'] = str(args.data / 'cifar10')
        options[f'{name.split(".")[0]}.num_workers'] = 0
    folder = args.work_dir / 'training'
    result = run_experiment(CONFIG, folder, options, test=True)
    state = read_state_dict(find_resumable(str(folder)))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.half().contiguous() for name, value in state.items()},
        args.out,
        metadata={name: f'{value:.2f}' for name, value in result.tested.items()},
    )
    print(f'{args.out}: top-1 {result.tested["accuracy/top1"]:.2f} %')
