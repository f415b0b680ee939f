"""What a run that goes on from a checkpoint cannot change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.runner import BaseLoop, EpochBasedTrainLoop

from mmtransmamba.utils.config_data import parse_dumped_config
from mmtransmamba.utils.config_keys import entry_at

_STORED = (
    'optim_wrapper.optimizer',
    'optim_wrapper.paramwise_cfg',
    'optim_wrapper.constructor',
    'param_scheduler',
)
"""Settings that a checkpoint brings along: the optimizer's groups, the schedulers."""


def check_settings(checkpoint: Mapping[str, Any], now: str) -> None:
    """Refuse settings that the state in a checkpoint would silently override.

    Args:
        checkpoint: The checkpoint; it need not have a config that can be read.
        now: The run's config, as mmengine writes it.

    Raises:
        ValueError: A setting of optimizer or schedulers differs from the checkpoint's.
    """
    text = (checkpoint.get('meta') or {}).get('cfg')
    try:
        before, after = parse_dumped_config(text), parse_dumped_config(now)
    except (ValueError, TypeError, RecursionError):
        return
    for place in _STORED:
        for key, old, new in _changes(
            place, entry_at(before, place), entry_at(after, place)
        ):
            raise ValueError(
                f'{key}={new!r} has no effect: the checkpoint brings the state of a '
                f'run with {old!r}, which goes on. Give the same, or start a new run '
                'from the weights: load_from=CHECKPOINT and resume=False'
            )


def check_length(loop: BaseLoop) -> None:
    """Refuse a training that is shorter than what a checkpoint has behind it.

    Raises:
        ValueError: It is.
    """
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    name = 'max_epochs' if by_epoch else 'max_iters'
    done = loop.epoch if by_epoch else loop.iter
    length = getattr(loop, f'_{name}', None)
    if isinstance(length, int) and done > length:
        raise ValueError(
            f'train_cfg.{name}={length}, but the checkpoint has {done} of them behind '
            'it: nothing would be trained'
        )


def _changes(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Keys whose values differ, as far inside as both have the same structure."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            yield from _changes(f'{key}.{name}', old.get(name), new.get(name))
    elif _is_list(old) and _is_list(new) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from _changes(f'{key}.{number}', *pair)
    elif old != new:
        yield key, old, new


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
