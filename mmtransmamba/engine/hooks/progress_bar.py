"""A progress bar over the iterations of a training run."""

from __future__ import annotations

import sys

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm

from mmtransmamba.engine.hooks.metric_values import single_numbers
from mmtransmamba.registry import HOOKS


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Shows iterations done, loss and last validation on the main process.

    In a terminal, the bar moves. If the output goes to a file, a line is written every
    15 seconds.

    Args:
        title: Text before the bar.
    """

    priority = 'VERY_LOW'

    def __init__(self, title: str = 'train') -> None:
        self.title = title
        self._bar: tqdm | None = None
        self._shown: dict[str, str] = {}

    def before_train(self, runner: Runner) -> None:
        self._bar = tqdm(
            total=runner.max_iters,
            initial=runner.iter,
            desc=self.title,
            unit='it',
            mininterval=0.2 if sys.stderr.isatty() else 15,
            dynamic_ncols=True,
            disable=not is_main_process(),
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        if outputs is not None and 'loss' in outputs:
            self._shown['loss'] = f'{outputs["loss"].item():.3f}'
            self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update()

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        for name, value in single_numbers(metrics or {}).items():
            self._shown[name.split('/')[-1]] = f'{value:.1f}'

    def after_train(self, runner: Runner) -> None:
        self._bar.close()
