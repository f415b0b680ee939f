"""What the tests of all families of configs do with a config whose sizes are shrunk."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch import nn

from mmtransmamba.models.language import choose_layers

ROOT = Path(__file__).resolve().parents[2]
CONFIG_DIR = ROOT / 'configs'
DEPTHS = {'llama-3.2-1b': 16, 'llama-3.2-3b': 28, 'phi-2': 32, 'stories260k': 5}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def student(cfg: Config) -> ConfigDict:
    """The part of the model that remains after training."""
    return cfg.model.get('student', cfg.model)


def teacher_of(name: str) -> str:
    """The language model, of those in ``DEPTHS``, that a config's name states."""
    return next(teacher for teacher in DEPTHS if teacher in name)


def layers_of(cfg: Config, teacher: str) -> list[int]:
    """The layers of a teacher in ``DEPTHS`` that a config makes Mamba."""
    convert = cfg.model.student.convert
    return choose_layers(
        DEPTHS[teacher], convert.get('layers', 'evenly'), convert.ratio
    )


def in_float32(cfg: Config) -> Config:
    """Without mixed precision, which needs a GPU."""
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.pop('dtype', None)
    return cfg


def convertible(cfg: Config) -> Config:
    """Of four layers at least one becomes Mamba, without a checkpoint of Mamba."""
    if student(cfg).get('convert'):
        student(cfg).convert.pop('mamba_checkpoint', None)
        student(cfg).convert.ratio = max(student(cfg).convert.ratio, 0.25)
    return cfg


@dataclass
class Steps:
    """What some training steps left: the last losses, and names of parameters."""

    losses: dict[str, torch.Tensor]
    changed: set[str]
    trained: set[str]
    every: set[str]


def train(cfg: Config, model: nn.Module, batches: Iterable[dict]) -> Steps:
    """Step once on each batch with the config's optimizer; all losses are finite.

    The terms of a distiller have their losses, and what is frozen stays as it is.
    """
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    model.train()
    for batch in batches:
        losses = model.train_step(batch, optim_wrapper)
        assert losses['loss'] > 0
        assert all(torch.isfinite(value).all() for value in losses.values())
    terms = cfg.model.get('terms', {})
    assert {f'loss_{key}' for key, term in terms.items() if term} <= set(losses)
    parameters = dict(model.named_parameters())
    changed = {key for key, p in parameters.items() if not torch.equal(p, before[key])}
    trained = {key for key, p in parameters.items() if p.requires_grad}
    assert changed <= trained
    return Steps(losses, changed, trained, set(parameters))


@torch.no_grad()
def evaluate(cfg: Config, model: nn.Module) -> dict[str, float]:
    """The metrics of a config's test."""
    loader = Runner.build_dataloader(cfg.test_dataloader)
    evaluator = Evaluator(cfg.test_evaluator)
    model.eval()
    for batch in loader:
        evaluator.process(model.test_step(batch), batch)
    return evaluator.evaluate(len(loader.dataset))


def run(cfg: Config, work_dir: Path, name: str = '') -> Runner:
    """Train as ``tools/train.py`` does."""
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}_{name}'
    cfg.log_level = 'ERROR'
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def logged(work_dir: Path) -> list[dict]:
    """The records that a run wrote."""
    return [
        json.loads(line)
        for path in work_dir.glob('*/vis_data/scalars.json')
        for line in path.read_text().splitlines()
    ]


def learning_rates(cfg: Config, steps: int) -> list[float]:
    """The rate of every step with ``steps`` steps per epoch, as in the Runner."""
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = []
    for scheduler in cfg.param_scheduler:
        scheduler = dict(scheduler, by_epoch=True)
        scheduler.setdefault('end', cfg.train_cfg.max_epochs)
        assert scheduler.pop('convert_to_iter_based')
        cls = PARAM_SCHEDULERS.get(scheduler.pop('type'))
        schedulers.append(
            cls.build_iter_from_epoch(
                **scheduler, optimizer=optimizer, epoch_length=steps
            )
        )
    rates = []
    for _ in range(cfg.train_cfg.max_epochs * steps):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


def read_yaml(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding='utf-8'))
