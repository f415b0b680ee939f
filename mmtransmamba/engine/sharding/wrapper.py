"""FSDP2 for the models of this package."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmtransmamba.engine.sharding.base import ShardedModel
from mmtransmamba.engine.sharding.precision import whole_parameters
from mmtransmamba.engine.sharding.units import units_of
from mmtransmamba.engine.sharding.whole import (
    clip_sharded,
    replace_parameters,
    whole_states,
    whole_weights,
)
from mmtransmamba.engine.student import transformers_part
from mmtransmamba.models.trainable.stages import touch_image_parameters
from mmtransmamba.registry import MODEL_WRAPPERS

TEACHER = ('replicate', 'shard')
DTYPES = (None, 'bfloat16')


@MODEL_WRAPPERS.register_module()
class FullyShardedModel(ShardedModel):
    """Shards a model's parameters, gradients and optimizer states over the devices.

    A device never holds more than its part and one block.

    Args:
        module: The model.
        teacher: ``'replicate'``: each device has the whole frozen teacher of a
            distiller; ``'shard'``: a part of it, and gathers each block when it runs.
        dtype: ``'bfloat16'``, for models of language: parameters are gathered and
            computed in bfloat16 and gradients are averaged in float32, except those of
            :func:`~mmtransmamba.engine.sharding.precision.whole_parameters`, SSM
            parameters among them. The sharded parameters keep their own dtype. None:
            everything is computed in the parameters' dtype, or as autocast determines.
        reshard_after_forward: Release each block's gathered parameters after its
            forward pass and gather them again for the backward pass.
        device_ids: Ignored; mmengine passes it to every wrapper.

    Raises:
        ValueError: A value is not accepted, or this PyTorch cannot do it.
    """

    def __init__(
        self,
        module: nn.Module,
        teacher: str = 'replicate',
        dtype: str | None = None,
        reshard_after_forward: bool = True,
        device_ids: Any = None,
    ) -> None:
        super().__init__(module)
        for name, value, accepted in (
            ('teacher', teacher, TEACHER),
            ('dtype', dtype, DTYPES),
            ('reshard_after_forward', reshard_after_forward, (True, False)),
        ):
            if value not in accepted:
                raise ValueError(
                    f'model_wrapper_cfg.{name}={value!r} must be one of '
                    f'{", ".join(map(repr, accepted))}'
                )
        if dtype is not None and transformers_part(module) is None:
            raise ValueError(
                f'model_wrapper_cfg.dtype={dtype!r} is for models of language; train a '
                f"{type(module).__name__} with optim_wrapper.type='mmtransmamba."
                "AutocastOptimWrapper'"
            )
        if teacher == 'shard' and getattr(module, 'teacher_device', None) is not None:
            raise ValueError(
                "model_wrapper_cfg.teacher='shard' distributes the teacher over all "
                "devices; leave out model.teacher_device, or use teacher='replicate'"
            )
        self.teacher = teacher
        self.dtype = None if dtype is None else getattr(torch, dtype)
        self.reshard_after_forward = reshard_after_forward
        self._kept = whole_parameters(module, self.dtype)
        if self._kept and not _can_ignore():
            raise ValueError(
                f'FSDP of PyTorch {torch.__version__} cannot keep '
                f'{next(iter(self._kept.values()))} in its own precision; it needs a '
                'later PyTorch, or parameters of a single dtype and '
                'model_wrapper_cfg.dtype=None'
            )

    def shard(self, optim_wrapper: OptimWrapper, device: torch.device) -> None:
        """See :meth:`ShardedModel.shard`."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        device = torch.device(device)
        mesh = init_device_mesh(device.type, (get_world_size(),))
        before = dict(self.module.named_parameters())
        policy = MixedPrecisionPolicy(
            param_dtype=self.dtype,
            reduce_dtype=None if self.dtype is None else torch.float32,
        )
        shard = partial(
            fully_shard, mesh=mesh, reshard_after_forward=self.reshard_after_forward
        )
        ignored = dict(ignored_params=set(self._kept)) if self._kept else {}
        for unit in units_of(self.module):
            shard(unit, mp_policy=policy, **ignored)
        # Images and tokens reach the model as they are.
        whole = MixedPrecisionPolicy(
            policy.param_dtype, policy.reduce_dtype, None, cast_forward_inputs=False
        )
        fully_shard(self.module, mesh=mesh, mp_policy=whole, **ignored)
        teacher = getattr(self.module, 'teacher', None)
        if self.teacher == 'shard' and isinstance(teacher, nn.Module):
            for part in (*units_of(teacher), teacher):
                shard(part)
        part = transformers_part(self.module)
        if part is not None:
            part.get_input_embeddings().register_forward_hook(
                partial(touch_images, part)
            )
        # Buffers, whole parameters, the data preprocessor and a whole teacher.
        self.module.to(device)
        after = dict(self.module.named_parameters())
        replacements = {before[name]: after[name] for name in before}
        replace_parameters(optim_wrapper.optimizer, replacements)
        self._kept = {replacements[p]: name for p, name in self._kept.items()}
        if getattr(optim_wrapper, 'clip_func', None) is nn.utils.clip_grad_norm_:
            optim_wrapper.clip_func = clip_sharded

    @contextmanager
    def whole(self, optim_wrapper: OptimWrapper) -> Iterator[None]:
        """See :meth:`ShardedModel.whole`."""
        with whole_weights(self.module), whole_states(optim_wrapper.optimizer):
            yield


def touch_images(part: nn.Module, _: nn.Module, args: tuple, output: Tensor) -> Tensor:
    """Let every process compute the same gradients, with images or without.

    Without images, the first layers might need no backward pass, in which the other
    processes gather and average.
    """
    return touch_image_parameters(output, part)


def _can_ignore() -> bool:
    from torch.distributed.fsdp import fully_shard

    return 'ignored_params' in inspect.signature(fully_shard).parameters
