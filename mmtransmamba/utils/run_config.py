"""Early checks of the parts that a run's config must have.

mmengine finds these mistakes too, but late, and describes them in terms of its code.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from mmengine.config import Config
from mmengine.registry import OPTIMIZERS, DefaultScope

_COUNTS = ('max_epochs', 'max_iters', 'val_interval')


def check_run(cfg: Config) -> None:
    """Check the parts that training and testing need.

    Raises:
        ValueError: The config has no model, has no training length, warms up for longer
            than it trains, or names an unknown optimizer.
    """
    where = f'the config "{cfg.filename}"' if cfg.filename else 'the config'
    model = cfg.get('model')
    if not isinstance(model, dict) or 'type' not in model:
        got = '' if model is None else f', got {model!r}'
        raise ValueError(f'{where} has no model: it needs model=dict(type=…){got}')
    training = cfg.get('train_cfg')
    if training:
        _check_counts(training)
        _check_schedule(training, cfg.get('param_scheduler'))
        _check_optimizer(cfg)


def _check_counts(training: dict[str, Any]) -> None:
    for name in _COUNTS:
        value = training.get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(
                f'train_cfg.{name}={value!r} must be a whole number, 1 at least'
            )


def _check_schedule(training: dict[str, Any], schedulers: Any) -> None:
    """Schedulers end with the training, unless the config sets their end."""
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    for number, scheduler in enumerate(schedulers or ()):
        if not isinstance(scheduler, dict):
            continue
        by_epoch = scheduler.get('by_epoch', True)
        length = 'max_epochs' if by_epoch else 'max_iters'
        begin, end = scheduler.get('begin', 0), scheduler.get('end')
        name = f'param_scheduler.{number} ({scheduler.get("type")})'
        if end is not None and begin >= end:
            raise ValueError(f'{name} ends at {end}, but begins at {begin}')
        if end is None and training.get(length, begin + 1) <= begin:
            unit = 'epoch' if by_epoch else 'iteration'
            raise ValueError(
                f'train_cfg.{length}={training[length]} is too short for {name}, which '
                f'begins at {unit} {begin}, after the warm-up; give both an earlier '
                f'place, for example --cfg-options param_scheduler.{number}.begin=1 '
                f'param_scheduler.{max(0, number - 1)}.end=1'
            )


def _check_optimizer(cfg: Config) -> None:
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    kind = optimizer.get('type') if isinstance(optimizer, dict) else None
    if not isinstance(kind, str):
        return
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        if OPTIMIZERS.get(kind) is not None:
            return
    near = get_close_matches(kind, OPTIMIZERS.module_dict, n=3)
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    raise ValueError(
        f'optim_wrapper.optimizer.type="{kind}" is no optimizer that is known{hint}'
    )
