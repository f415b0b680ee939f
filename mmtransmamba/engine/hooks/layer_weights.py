"""Logging the layer weights of a distiller over time."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmtransmamba.engine.hooks.interval import checked_interval
from mmtransmamba.engine.unwrap import unwrapped_model
from mmtransmamba.registry import HOOKS


@HOOKS.register_module()
class LayerWeightsHook(Hook):
    """Writes each layer's weight to the visualizer, averaged over directions.

    The scalars are named ``layer_weight/TERM/INDEX`` with the student's layers
    counted from 0.

    Args:
        interval: Iterations between two records.

    Raises:
        ValueError: ``interval`` is not a whole number of at least 1; at the start of a
            training also if the model is not a distiller.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = checked_interval('LayerWeightsHook', interval)

    def before_train(self, runner: Runner) -> None:
        if not hasattr(unwrapped_model(runner), 'layer_weights'):
            raise ValueError(
                'LayerWeightsHook: the model is not a distiller and has no layer '
                'weights; leave the hook out.'
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        if not self.every_n_train_iters(runner, self.interval):
            return
        scalars = {
            f'layer_weight/{term}/{i}': weight
            for term, weights in unwrapped_model(runner).layer_weights().items()
            for i, weight in enumerate(weights.tolist())
        }
        if scalars:
            runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
