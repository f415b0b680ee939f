"""Loading configs, and training and testing with a config whose sizes are shrunk."""

import json
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import islice
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
DEPTHS = {'llama-3.2-1b': 16, 'llama-3.2-3b': 28, 'phi-2': 32, 'hovle-2.6b': 32}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# Stages that students have completed before the later stages of mmMamba.
LATER = {
    'stage2': ['init:mimic', 'stage1'],
    'stage3': ['init:mimic', 'stage1', 'stage2'],
}
NAMES = {
    path.stem: path.relative_to(CONFIG_DIR).as_posix()
    for path in sorted(CONFIG_DIR.rglob('*.py'))
    if '_base_' not in path.parts
}
"""All configs by their stems, which are those of their work directories."""


@cache
def _read(name: str) -> Config:
    return Config.fromfile(CONFIG_DIR / name)


def load(name: str) -> Config:
    """A config by its path below ``configs/``; its bases are read once."""
    return deepcopy(_read(name))


def strings(value) -> Iterator[str]:
    """All strings in a config."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


def flat(value: dict, prefix: str = '') -> dict:
    """The values of a config by their keys, as ``--cfg-options`` takes them."""
    found = {}
    for key, each in value.items():
        nested = isinstance(each, dict) and each
        found |= flat(each, f'{prefix}{key}.') if nested else {prefix + key: each}
    return found


def changes(cfg: Config, main: Config) -> dict:
    """The values of ``cfg`` that are other than in ``main``, or not in it."""
    before, after = flat(main.to_dict()), flat(cfg.to_dict())
    return {k: v for k, v in after.items() if k not in before or before[k] != v}


def student(cfg: Config) -> ConfigDict:
    """The part of the model that remains after training."""
    return cfg.model.get('student', cfg.model)


def stage_of(cfg: Config) -> str | None:
    """The stage of a config's model or of its student, None without one."""
    return cfg.model.get('stage') or student(cfg).get('stage')


def teacher_of(name: str) -> str:
    """The language model, of those in ``DEPTHS``, that a config's name states."""
    return next(teacher for teacher in DEPTHS if teacher in name)


def conversion_of(cfg: Config) -> dict:
    """How a config's student was converted, in its own run or in one before."""
    convert = student(cfg).get('convert', {})
    if convert is None:
        before = Path(student(cfg).path).parent.name
        return conversion_of(load(NAMES[before]))
    return dict(convert)


def layers_of(cfg: Config, depth: int) -> list[int]:
    """The layers of a teacher of ``depth`` layers that a config makes Mamba."""
    convert = conversion_of(cfg)
    return choose_layers(depth, convert.get('layers', 'evenly'), convert['ratio'])


def count_on_meta(build: Callable[[], nn.Module]) -> int:
    """Parameters of a model that is built without memory."""
    with torch.device('meta'):
        return sum(p.numel() for p in build().parameters())


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
    """Results of some training steps: the last losses, and names of parameters."""

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


_made: dict[str, list[dict]] = {}


def batches_of(loader: ConfigDict, count: int | None = None) -> list[dict]:
    """The first ``count`` batches of a loader, or all; equal loaders run once."""
    key = f'{count} {loader.to_dict()}'
    if key not in _made:
        torch.manual_seed(0)
        _made[key] = list(islice(Runner.build_dataloader(loader, seed=0), count))
    return deepcopy(_made[key])


@torch.no_grad()
def evaluate(cfg: Config, model: nn.Module) -> dict[str, float]:
    """The metrics of a config's test."""
    evaluator = Evaluator(cfg.test_evaluator)
    model.eval()
    batches = batches_of(cfg.test_dataloader)
    for batch in batches:
        evaluator.process(model.test_step(batch), batch)
    return evaluator.evaluate(len(batches) * cfg.test_dataloader.batch_size)


def run(cfg: Config, work_dir: Path) -> Runner:
    """Train as ``tools/train.py`` does."""
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}'
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
    """The rate of every step, as in the Runner.

    Args:
        steps: Of an epoch, or of a whole training that counts iterations.
    """
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    epochs = cfg.train_cfg.get('max_epochs')
    given, schedulers = cfg.param_scheduler or [], []
    for scheduler in [given] if isinstance(given, dict) else given:
        scheduler = dict(scheduler, optimizer=optimizer)
        cls = PARAM_SCHEDULERS.get(scheduler.pop('type'))
        if scheduler.pop('convert_to_iter_based', False):
            scheduler = dict(end=epochs) | scheduler | dict(by_epoch=True)
            schedulers.append(
                cls.build_iter_from_epoch(**scheduler, epoch_length=steps)
            )
        else:
            schedulers.append(cls(**dict(end=steps) | scheduler))
    rates = []
    for _ in range((epochs or 1) * steps):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


def optimizer_of(cfg: Config) -> tuple:
    """Type, rate, betas and decay of a config's optimizer, defaults filled in."""
    given = cfg.optim_wrapper.optimizer
    return (
        given.type,
        given.lr,
        tuple(given.get('betas', (0.9, 0.999))),
        given.get('weight_decay', 0),
    )


def read_yaml(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding='utf-8'))
