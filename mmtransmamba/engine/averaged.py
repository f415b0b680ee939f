"""The weights of a Runner's checkpoints in its live model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.hooks import EMAHook
from mmengine.runner import Runner


@contextmanager
def checkpoint_weights(runner: Runner) -> Iterator[None]:
    """Context in which the model has the weights of a checkpoint's ``state_dict``.

    These are the model's own, unless an ``EMAHook`` (or another averaging hook) keeps
    averages. Validation measures the averages, and mmengine saves them as
    ``state_dict``, while training continues with the model's own weights.

    Use this context to save or measure the model after ``runner.train()``.
    """
    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    for hook in averages:
        hook._swap_ema_parameters()
    try:
        yield
    finally:
        for hook in reversed(averages):
            hook._swap_ema_parameters()
