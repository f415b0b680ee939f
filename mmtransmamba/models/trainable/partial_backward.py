"""One optimizer step with a separate backward pass for each part of the loss."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce_params
from mmengine.optim import OptimWrapper
from torch import Tensor

from mmtransmamba.compat import is_sharded, set_inner_count


class PartialBackward:
    """Passes the loss to ``OptimWrapper.update_params`` in parts.

    The gradients are those of the sum, but only one part's graph exists at a time.
    Accumulation over iterations, loss scaling and clipping are left to the wrapper.
    One object is valid for one iteration.

    Args:
        optim_wrapper: mmengine's wrapper, or one with the same interface.
        mean_of_batches: Divide the loss by the number of iterations whose gradients
            are accumulated, as mmengine does.
    """

    def __init__(
        self, optim_wrapper: OptimWrapper, mean_of_batches: bool = False
    ) -> None:
        self._wrapper = optim_wrapper
        self._count = optim_wrapper.inner_count
        self._mean_of_batches = mean_of_batches

    def __call__(self, loss: Tensor) -> None:
        """Add the gradients of a part of the loss."""
        with torch.autocast(loss.device.type, enabled=False):
            if self._mean_of_batches:
                loss = self._wrapper.scale_loss(loss)
            self._wrapper.backward(loss)
        # The wrapper counts backward passes as iterations; this is the only way to
        # correct its count.
        set_inner_count(self._wrapper, self._count)

    def completes_step(self) -> bool:
        """Whether the optimizer makes its step at the end of this iteration."""
        set_inner_count(self._wrapper, self._count + 1)
        complete = self._wrapper.should_update()
        set_inner_count(self._wrapper, self._count)
        return complete

    def step(self) -> None:
        """End the iteration, as ``update_params`` does after its backward pass."""
        set_inner_count(self._wrapper, self._count + 1)
        if self._wrapper.should_update():
            self._average()
            self._wrapper.step()
            self._wrapper.zero_grad()

    def _average(self) -> None:
        """Average the gradients over the processes, as no DDP wrapper does it."""
        groups = self._wrapper.optimizer.param_groups
        gradients = [p.grad for g in groups for p in g['params'] if p.grad is not None]
        # FSDP has averaged the gradients of the parameters that it shards.
        gradients = [grad for grad in gradients if not is_sharded(grad)]
        all_reduce_params(gradients, op='mean')
