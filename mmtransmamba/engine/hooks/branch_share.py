"""Logging how much of a layer's output comes from its linear branch."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmtransmamba.engine.hooks.interval import checked_interval
from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.models.language.mixers import WindowBranch
from mmtransmamba.registry import HOOKS


@HOOKS.register_module()
class BranchShareHook(Hook):
    """Logs the linear branch's share of the output of mixers with a window.

    The scalars are named ``branch_share/LAYER``: 0 for a layer whose linear branch is
    bypassed, 1 for one whose window is; see
    :meth:`~mmtransmamba.models.language.mixers.WindowBranch.branch_share`. They are
    means over the tokens that the mixers see in one iteration.

    Args:
        interval: Iterations between two records.

    Raises:
        ValueError: ``interval`` is not a whole number of at least 1; at the start of a
            training also if the model has no such mixer.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = checked_interval('BranchShareHook', interval)
        self._mixers: list[WindowBranch] = []

    def before_train(self, runner: Runner) -> None:
        modules = unwrapped_model(runner).modules()
        self._mixers = [m for m in modules if isinstance(m, WindowBranch)]
        if not self._mixers:
            raise ValueError(
                'BranchShareHook: the model has no mixer with a window and a linear '
                'branch (WindowMamba2, WindowGatedDeltaNet, WindowKDA); leave the hook '
                'out.'
            )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        if (runner.iter + 1) % self.interval == 0:
            for mixer in self._mixers:
                mixer.watched = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        shares = {
            f'branch_share/{mixer.layer_idx}': float(torch.stack(mixer.watched).mean())
            for mixer in self._mixers
            if mixer.watched
        }
        for mixer in self._mixers:
            mixer.watched = None
        if shares:
            runner.visualizer.add_scalars(shares, step=runner.iter + 1)
