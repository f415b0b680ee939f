"""A report of the number of bad samples at the end of an epoch."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmtransmamba.registry import HOOKS


@HOOKS.register_module()
class BadSamplesHook(Hook):
    """Reports a data set's bad samples by reason at the end of an epoch.

    The data set has ``bad_samples`` with a ``report()``, like
    :class:`~mmtransmamba.datasets.ConversationDataset` and
    :class:`~mmtransmamba.datasets.ConversationStream`, or wraps such data sets as
    ``dataset`` or ``datasets``. In an iteration-based run, the whole training is one
    epoch.
    """

    def after_train_epoch(self, runner: Runner) -> None:
        self._report(runner.train_dataloader)

    def after_val_epoch(self, runner: Runner, metrics=None) -> None:
        self._report(runner.val_dataloader)

    def after_test_epoch(self, runner: Runner, metrics=None) -> None:
        self._report(runner.test_dataloader)

    @staticmethod
    def _report(loader: DataLoader) -> None:
        for dataset in _inner(loader.dataset):
            found = getattr(dataset, 'bad_samples', None)
            if found is not None:
                print_log(found.report(), 'current')


def _inner(dataset) -> list:
    """A data set and those that it wraps."""
    wrapped = [dataset.dataset] if hasattr(dataset, 'dataset') else []
    wrapped += getattr(dataset, 'datasets', [])
    return [dataset] + [found for each in wrapped for found in _inner(each)]
