"""mmengine's Runner for a model that is sharded over the devices."""

from __future__ import annotations

from typing import Any

from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from mmtransmamba.engine.sharding.base import ShardedModel
from mmtransmamba.registry import MODEL_WRAPPERS, RUNNERS


@RUNNERS.register_module()
class FullyShardedRunner(Runner):
    """A Runner whose model is a :class:`FullyShardedModel` or a :class:`ZeroModel`.

    Weights are initialised, inherited and loaded as in one process; after the hooks
    that do so, training starts with the model in parts. A checkpoint is that of one
    process, with whole weights and whole states of the optimizer, so it can be resumed
    with any number of processes and any strategy.
    """

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model, which stays on the CPU until it is sharded.

        Raises:
            ValueError: There is only one process.
        """
        if not self.distributed:
            raise ValueError(
                'A model in parts needs the processes of tools/dist_train.sh CONFIG '
                'GPUS --strategy fsdp'
            )
        wrapper = dict(model_wrapper_cfg or {})
        wrapper.setdefault('type', 'mmtransmamba.FullyShardedModel')
        return MODEL_WRAPPERS.build(wrapper, default_args=dict(module=model))

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks; when all are ready to train, shard the model.

        Raises:
            TypeError: The optimizer wrapper is not a single ``OptimWrapper``.
        """
        super().call_hook(fn_name, **kwargs)
        if fn_name != 'before_train':
            return
        if not isinstance(self.optim_wrapper, OptimWrapper):
            raise TypeError(
                'A model in parts needs a single OptimWrapper, not a '
                f'{type(self.optim_wrapper).__name__}'
            )
        assert isinstance(self.model, ShardedModel)
        self.model.shard(self.optim_wrapper, get_device())

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: Any = 'cpu',
    ) -> None:
        """Like mmengine's, on the CPU: a device may not hold what the file does."""
        super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Gather the whole model in the main process, which saves it."""
        with self.model.whole(self.optim_wrapper):
            super().save_checkpoint(*args, **kwargs)
