"""A training that draws random numbers everywhere, and takes a second at most."""

import itertools
import random
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

SAMPLES = 10
_NUMBERS = itertools.count()  # runs of one second must differ in name


@DATASETS.register_module()
class NoisySamples(Dataset):
    """Numbers with noise of all three libraries."""

    metainfo: dict = {}

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        noise = [random.random(), np.random.normal(), torch.randn(()).item()]
        return dict(inputs=torch.tensor([float(index), *noise]))


@MODELS.register_module()
class DropoutModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, inputs, mode='loss'):
        # As Mixup does, the model draws from numpy too.
        scale = np.random.beta(0.5, 0.5) if mode == 'loss' else 1.0
        loss = (self.layers(inputs) * scale).square().mean()
        return dict(loss=loss) if mode == 'loss' else [dict(value=loss.item())]


@METRICS.register_module()
class RandomMetric(BaseMetric):
    """A score that is better at every second validation."""

    def process(self, data_batch, data_samples):
        np.random.random(), torch.rand(()), random.random()
        self.results.append(1)

    def compute_metrics(self, results):
        done = MessageHub.get_current_instance().get_info('iter') + 1
        return dict(acc=done // 10)


def make_config(
    work_dir,
    by_epoch=True,
    workers=0,
    persistent=False,
    sampler='DefaultSampler',
    every=1,
    loop_by_epoch=None,
    val=False,
    seed=0,
    diff_rank_seed=False,
    length=4,
    **checkpoint,
):
    """A config; ``length`` is in epochs or, by iterations, in passes of 5 batches."""
    by_loop = by_epoch if loop_by_epoch is None else loop_by_epoch
    train_cfg = (
        dict(by_epoch=True, max_epochs=length, val_interval=1)
        if by_loop
        else dict(by_epoch=False, max_iters=5 * length, val_interval=3)
    )
    loader = dict(
        batch_size=2,
        num_workers=workers,
        persistent_workers=persistent,
        dataset=dict(type='NoisySamples'),
        sampler=dict(type=sampler, shuffle=True),
        collate_fn=dict(type='default_collate'),
    )
    cfg = dict(
        model=dict(type='DropoutModel'),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.01)),
        param_scheduler=dict(type='CosineAnnealingLR', T_max=20, by_epoch=False),
        default_hooks=dict(
            checkpoint=dict(
                type='mmtransmamba.CheckpointHook',
                interval=every,
                by_epoch=by_epoch,
                **checkpoint,
            )
        ),
        default_scope='mmengine',
        randomness=dict(seed=seed, diff_rank_seed=diff_rank_seed),
        experiment_name=f'tiny-{next(_NUMBERS)}',
        log_level='WARNING',
    )
    if val:
        cfg |= dict(
            val_dataloader=dict(loader, sampler=dict(type='DefaultSampler')),
            val_cfg=dict(),
            val_evaluator=dict(type='RandomMetric'),
        )
    return cfg


class StopTraining(Exception):
    """Stands for a kill."""


def train(cfg, stop_at=None, resume=None):
    """Train; ``stop_at`` iterations, at the latest, everything is dropped.

    Returns:
        The runner, None after a kill.
    """
    cfg = dict(cfg)
    if resume is not None:
        cfg |= dict(resume=True, load_from=None if resume == 'auto' else str(resume))
    runner = Runner(**{'cfg': Config(dict(cfg)), **cfg})
    if stop_at is not None:
        step = runner.model.train_step

        def stopping(*args, **kwargs):
            if runner.iter == stop_at:
                raise StopTraining
            return step(*args, **kwargs)

        runner.model.train_step = stopping
    with _ending_workers():
        try:
            runner.train()
        except StopTraining:
            return None
    return runner


@contextmanager
def _ending_workers():
    """Ends the workers of a run, which would else wait for garbage collection."""
    started = []
    make = DataLoader._get_iterator

    def making(loader):
        started.append(make(loader))
        return started[-1]

    DataLoader._get_iterator = making
    try:
        yield
    finally:
        DataLoader._get_iterator = make
        for iterator in started:
            getattr(iterator, '_shutdown_workers', int)()
