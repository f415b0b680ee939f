"""Short training runs that start with subcloning."""

import copy
import os
from pathlib import Path

import mmtransmamba  # noqa: F401  (first: it bridges the imports that follow)

# isort: split
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

NORMALISATION = dict(mean=[10.0, 20.0, 30.0], std=[40.0, 50.0, 60.0])
VIT = dict(
    model_name='vit_tiny_patch16_224',
    img_size=16,
    patch_size=8,
    embed_dim=16,
    depth=2,
    num_heads=2,
    num_classes=3,
)
TEACHER = dict(
    type='mmtransmamba.TimmTeacher', model=VIT, checkpoint='random', **NORMALISATION
)


def student(dim=16):
    return dict(
        type='mmpretrain.ImageClassifier',
        data_preprocessor=dict(**NORMALISATION, to_rgb=True),
        backbone=dict(
            type='mmtransmamba.PlainMamba',
            arch=dict(
                embed_dims=dim,
                depth=2,
                num_convs=0,
                dwconv_layers=(),
                drop_path_rate=0.0,
                d_state=2,
                expand=2,
            ),
            img_size=16,
            patch_size=8,
        ),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=3,
            in_channels=dim,
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
    )


def distiller(**kwargs):
    return dict(
        type='mmtransmamba.MultiDirectionDistiller',
        student=student(**kwargs),
        teacher=TEACHER,
        terms=dict(logits=dict(type='mmtransmamba.LogitsTerm')),
    )


class Noise(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 16, 16), generator=generator).byte()
        return dict(inputs=image, data_samples=DataSample().set_gt_label(index % 3))


class Watch(Hook):
    """Keeps the model's parameters as they are before the first step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = getattr(runner.model, 'module', runner.model)
        if not hasattr(self, 'seen'):
            self.seen = copy.deepcopy(dict(model.named_parameters()))


def make_runner(tmp_path, model, hook, sampler='DefaultSampler', **kwargs):
    watch = Watch()
    train_cfg = dict(by_epoch=True, max_epochs=kwargs.pop('max_epochs', 1))
    if sampler == 'InfiniteSampler':
        train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=Noise(),
            batch_size=2,
            num_workers=0,
            sampler=dict(type=sampler, shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[watch, hook],
        experiment_name=f'{tmp_path.name}_{len(list(tmp_path.iterdir()))}',
        default_scope='mmpretrain',
        randomness=kwargs.pop('randomness', dict(seed=3)),
        **kwargs,
    )
    return runner, watch


def hook_of(**kwargs):
    return dict(type='mmtransmamba.SubcloneInitializer', **kwargs)


def train_on_rank(rank: int, port: int, folder: Path) -> None:
    """Train as one of two processes, and save what the training began with."""
    os.environ.update(
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE='2',
        OMP_NUM_THREADS='1',
    )
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo')  # mmengine would look for a GPU
    runner, watch = make_runner(
        folder,
        distiller(),
        hook_of(),
        launcher='pytorch',
        cfg=dict(
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel',
                device_ids=None,
                broadcast_buffers=False,
            )
        ),
        randomness=dict(seed=3, diff_rank_seed=True),
    )
    runner.train()
    torch.save(watch.seen, folder / f'rank{rank}.pt')
    torch.distributed.destroy_process_group()
