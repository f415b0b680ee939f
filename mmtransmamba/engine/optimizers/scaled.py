"""Float16 autocast with loss scaling, for models that FSDP2 shards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor, nn
from torch.amp import GradScaler

from mmtransmamba.compat import is_sharded
from mmtransmamba.registry import OPTIM_WRAPPERS


class ShardedGradScaler(GradScaler):
    """A gradient scaler whose processes hold parts of the gradients.

    A gradient may overflow in one part only. All processes then skip the step and halve
    the scale. Gradients may be sharded, whole, or both in one model, which PyTorch's
    scaler does not take.
    """

    def _unscale_grads_(
        self,
        optimizer: torch.optim.Optimizer,
        inv_scale: Tensor,
        found_inf: Tensor,
        allow_fp16: bool,
    ) -> dict[torch.device, Tensor]:
        parts: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for group in optimizer.param_groups:
            for parameter in group['params']:
                grad = parameter.grad
                if grad is None:
                    continue
                grad = grad.to_local() if is_sharded(grad) else grad
                if grad.dtype == torch.float16 and not allow_fp16:
                    raise ValueError(
                        'gradients in float16 cannot be scaled; train a model whose '
                        'parameters are float32'
                    )
                parts[grad.dtype].append(grad)
        device = torch.device(get_device())
        found, factor = found_inf.to(device), inv_scale.to(device)
        with torch.no_grad():
            for grads in parts.values():
                torch._amp_foreach_non_finite_check_and_unscale_(grads, found, factor)
            all_reduce(found, op='max')
        return {device: found}


@OPTIM_WRAPPERS.register_module()
class ScaledOptimWrapper(AmpOptimWrapper):
    """Runs the model under float16 autocast with loss scaling, on any device.

    mmengine's ``AmpOptimWrapper`` needs a GPU, and its scaler does not work with every
    model that FSDP2 shards. The state dicts are the same.

    Args:
        loss_scale: ``'dynamic'``, a fixed scale, or arguments of ``GradScaler``.
        dtype: ``'float16'``.
        **kwargs: See mmengine's ``OptimWrapper``.

    Raises:
        ValueError: Another dtype.
    """

    def __init__(
        self,
        loss_scale: str | float | dict[str, Any] = 'dynamic',
        dtype: str = 'float16',
        **kwargs: Any,
    ) -> None:
        OptimWrapper.__init__(self, **kwargs)
        if dtype not in ('float16', torch.float16):
            raise ValueError(
                f"optim_wrapper.dtype={dtype!r} must be 'float16' for a "
                'ScaledOptimWrapper; bfloat16 needs no scaling: '
                "type='mmtransmamba.AutocastOptimWrapper'"
            )
        self.cast_dtype = torch.float16
        self._scale_update_param = None
        options: dict[str, Any] = {}
        if isinstance(loss_scale, dict):
            options = loss_scale
        elif loss_scale != 'dynamic':
            self._scale_update_param = float(loss_scale)
            options = dict(init_scale=float(loss_scale))
        self.loss_scaler = ShardedGradScaler(get_device(), **options)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around the forward pass."""
        context = OptimWrapper.optim_context(self, model)
        with context, torch.autocast(get_device(), torch.float16):
            yield
