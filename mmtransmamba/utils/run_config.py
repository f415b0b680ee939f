"""Early checks of the parts that a run's config must have.

mmengine finds these mistakes too, but late, and describes them in terms of its code.
"""

from __future__ import annotations

import inspect
from typing import Any

from mmengine.config import Config
from mmengine.registry import OPTIMIZERS, DefaultScope

from mmtransmamba.registry import MODELS
from mmtransmamba.utils.config_keys import check_inner_keys
from mmtransmamba.utils.near_names import did_you_mean
from mmtransmamba.utils.strategies import check_fsdp

# With these a model sees all batches of a step, or finds out that it does not.
_WHOLE_STEPS = (
    *('MMDistributedDataParallel', 'PartwiseDataParallel'),
    *('DDPStrategy', 'SingleDeviceStrategy', 'FullyShardedModel'),
    'ZeroModel',
)
_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
_COUNTS = ('max_epochs', 'max_iters', 'val_interval')


def check_run(cfg: Config) -> None:
    """Check the parts that training and testing need.

    Raises:
        ValueError: The config has a key that nobody reads inside a part whose keys are
            fixed, has no model, has no training length, warms up for longer
            than it trains, names an unknown optimizer, accumulates batches for a mean
            over their tokens that cannot be taken, or has a part that FSDP does not
            support.
    """
    where = f'the config "{cfg.filename}"' if cfg.filename else 'the config'
    model = cfg.get('model')
    if not isinstance(model, dict) or 'type' not in model:
        got = '' if model is None else f', got {model!r}'
        raise ValueError(f'{where} has no model: it needs model=dict(type=…){got}')
    check_inner_keys(cfg)
    _check_seed((cfg.get('randomness') or {}).get('seed'))
    _check_log_level(cfg.get('log_level'))
    training = cfg.get('train_cfg')
    if training:
        _check_counts(training)
        _check_schedule(training, cfg.get('param_scheduler'))
        _check_optimizer(cfg)
        _check_average(cfg)
        check_fsdp(cfg)


def _check_seed(seed: Any) -> None:
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
        raise ValueError(
            f'randomness.seed={seed!r} must be a whole number from 0 to {2**32 - 1}, '
            'or None for a random one'
        )


def _check_log_level(level: Any) -> None:
    if level is not None and level not in _LEVELS and type(level) is not int:
        raise ValueError(
            f'log_level={level!r} must be one of {", ".join(_LEVELS)}, or a whole '
            'number'
        )


def _check_average(cfg: Config) -> None:
    """Refuse a mean over a step's tokens where the model does not see the whole step.

    Such a model keeps the batches that are accumulated. mmengine's FSDP and DeepSpeed
    show it one batch at a time; under DDP the model itself refuses.
    """
    strategy = cfg.get('strategy') or {}
    wrapper = strategy.get('model_wrapper') or cfg.get('model_wrapper_cfg') or {}
    kinds = [str(kind.get('type') or '') for kind in (strategy, wrapper)]
    kinds = [kind.rpartition('.')[2] for kind in kinds]
    others = [kind for kind in kinds if kind and kind not in _WHOLE_STEPS]
    count = max(
        (cfg.get('optim_wrapper') or {}).get('accumulative_counts') or 1,
        strategy.get('gradient_accumulation_steps') or 1,
    )
    if not others or count == 1:
        return
    average = _argument(cfg.model, 'average')
    if average in (None, 'batches'):
        return
    raise ValueError(
        f'{cfg.model["type"]}: under {others[0]} the mean over the {average} of '
        f'{count} accumulated batches cannot be taken. Set model_wrapper_cfg=dict('
        "type='mmtransmamba.PartwiseDataParallel'), or model.average='batches' for the "
        "mean of the batches' means."
    )


def _argument(model: dict[str, Any], name: str) -> Any:
    """An argument of a model, by default its class's own; None if there is none."""
    cls = model['type']
    cls = MODELS.get(cls) if isinstance(cls, str) else cls
    parameter = cls and inspect.signature(cls).parameters.get(name)
    return model.get(name, parameter.default) if parameter else None


def _check_counts(training: dict[str, Any]) -> None:
    for name in _COUNTS:
        value = training.get(name)
        if name in training and (type(value) is not int or value < 1):
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
    raise ValueError(
        f'optim_wrapper.optimizer.type="{kind}" is not an optimizer that is known'
        f'{did_you_mean(kind, OPTIMIZERS.module_dict, 3)}'
    )
