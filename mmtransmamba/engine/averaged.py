"""The weights that a Runner's checkpoints hold, in its live model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.hooks import EMAHook
from mmengine.runner import Runner


@contextmanager
def checkpoint_weights(runner: Runner) -> Iterator[None]:
    """Within it the Runner's model has the weights of a checkpoint's ``state_dict``.

    Those are the model's own, unless an ``EMAHook`` (one that averages in another way
    included) keeps averages of them: these are what validation measures and what
    mmengine saves as ``state_dict``, while the model itself goes on with its own.

    Whoever saves or measures the model after ``runner.train()`` does so within this.
    """
    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    for hook in averages:
        hook._swap_ema_parameters()
    try:
        yield
    finally:
        for hook in reversed(averages):
            hook._swap_ema_parameters()
