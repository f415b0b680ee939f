"""DeepSpeed's ZeRO-3 for the models of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine._strategy import DeepSpeedStrategy
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmtransmamba.engine.sharding.base import ShardedModel, parameters_with_images
from mmtransmamba.engine.sharding.whole import whole_weights
from mmtransmamba.engine.sharding.wrapper import touch_images
from mmtransmamba.engine.sharding.zero_states import (
    ZeroOptimizer,
    give_states,
    take_states,
)
from mmtransmamba.engine.student import transformers_part
from mmtransmamba.registry import MODEL_WRAPPERS, STRATEGIES

# They treat every element of a parameter alike, as ZeRO's flat parts need.
OPTIMIZERS = ('SGD', 'Adam', 'AdamW', 'Adamax', 'NAdam', 'RAdam', 'RMSprop')


@STRATEGIES.register_module()
class ZeroStrategy(DeepSpeedStrategy):
    """mmengine's strategy, for a Runner that has set up processes and logs itself.

    Args:
        **options: See mmengine's ``DeepSpeedStrategy``.
    """

    def _setup_env(self, **_: Any) -> None:
        self._launcher, self._distributed = 'pytorch', True
        self._rank, self._world_size = get_rank(), get_world_size()
        self._timestamp = ''

    def build_logger(self, **_: Any) -> MMLogger:
        return MMLogger.get_current_instance()


@MODEL_WRAPPERS.register_module()
class ZeroModel(ShardedModel):
    """Shards a model's parameters, gradients and optimizer states with DeepSpeed.

    The frozen teacher of a distiller is whole on every device. So are parameters that
    some processes may not use in a step: those for images, and those of a distiller's
    terms.

    Args:
        module: The model, with trained parameters of a single dtype.
        strategy: Config of a :class:`ZeroStrategy`.
        device_ids: Ignored; mmengine passes it to every wrapper.
    """

    def __init__(
        self,
        module: nn.Module,
        strategy: Mapping[str, Any] | None = None,
        device_ids: Any = None,
    ) -> None:
        super().__init__(module)
        given = dict(strategy or {})
        given.setdefault('type', 'mmtransmamba.ZeroStrategy')
        given.setdefault('zero_optimization', dict(stage=3))
        self.strategy = given

    def shard(self, optim_wrapper: OptimWrapper, device: torch.device) -> None:
        """See :meth:`ShardedModel.shard`.

        Raises:
            ValueError: DeepSpeed cannot train these parameters, or not with this
                optimizer.
        """
        import deepspeed

        module, optimizer = self.module, optim_wrapper.optimizer
        _check_dtypes(module)
        _check_optimizer(optimizer)
        part = transformers_part(module)
        images = parameters_with_images(part)
        groups = [list(group['params']) for group in optimizer.param_groups]
        states = take_states(optimizer)
        strategy = STRATEGIES.build(self.strategy)
        strategy.config.setdefault('train_micro_batch_size_per_gpu', 1)
        # DeepSpeed knows AdamW by name, and no others of its kind.
        strategy.config.setdefault('zero_allow_untested_optimizer', True)
        if any(parameter.requires_grad for parameter in images):
            # Gradients reach the bucket in an order that depends on a batch's images.
            # All processes average the same ones together only if all fit into it.
            total = sum(p.numel() for p in module.parameters() if p.requires_grad)
            options = strategy.config['zero_optimization']
            given = options.get('reduce_bucket_size', 0)
            options['reduce_bucket_size'] = max(given, total + 1)
        deepspeed.init_distributed(verbose=False)
        deepspeed.zero.Init(module=module, config_dict_or_path=strategy.config)
        # Buffers, the data preprocessor and the teacher; parameters are there already.
        module.to(device)
        strategy.optim_wrapper = optim_wrapper
        wrapper = strategy._wrap_model(module)
        engine = wrapper.model
        terms = getattr(module, 'terms', None)
        _keep_whole(engine, [*(terms.parameters() if terms else ()), *images])
        if images:
            _forget_order(engine)
        # Forward passes of the model are the engine's: it gathers during them.
        module._run_forward = wrapper._run_forward
        if part is not None:
            embeddings = part.get_input_embeddings()
            embeddings.register_forward_hook(partial(touch_images, part))
        optim_wrapper.optimizer = ZeroOptimizer(engine, groups)
        optim_wrapper.backward = _backward_of(engine, optim_wrapper)
        optim_wrapper.clip_grad_kwargs = None  # gradient_clipping of the strategy
        give_states(engine.optimizer, states)

    @contextmanager
    def whole(self, optim_wrapper: OptimWrapper) -> Iterator[None]:
        """See :meth:`ShardedModel.whole`."""
        optimizer = optim_wrapper.optimizer
        if not isinstance(optimizer, ZeroOptimizer):
            yield
            return
        with whole_weights(self.module), optimizer.whole():
            yield


def _backward_of(engine: Any, optim_wrapper: OptimWrapper) -> Callable[..., None]:
    """``OptimWrapper.backward`` by the engine, which averages the gradients.

    Losses are divided by the number of accumulated batches already, and backward passes
    add up until the optimizer's step.
    """
    count = type(optim_wrapper).backward

    class _Loss:
        def __init__(self, loss: Tensor) -> None:
            self.loss = loss

        def backward(self, **kwargs: Any) -> None:
            engine.optimizer.clear_backward_seen_flag()
            engine.backward(self.loss, scale_wrt_gas=False, **kwargs)

    def backward(loss: Tensor, **kwargs: Any) -> None:
        count(optim_wrapper, _Loss(loss), **kwargs)

    return backward


def _forget_order(engine: Any) -> None:
    """Let every process gather each layer when it runs, and no earlier.

    DeepSpeed records the order of the layers to look ahead, and requires that it be the
    same in all processes. It depends on a process's images.
    """
    coordinator = engine.optimizer.parameter_offload.get_param_coordinator()

    def forget(module: nn.Module, args: tuple) -> None:
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()

    engine.module.register_forward_pre_hook(forget)


def _keep_whole(engine: Any, parameters: list[nn.Parameter]) -> None:
    """Never release parameters that not every process gathers at the same time."""
    kept = engine.optimizer.persistent_parameters
    known = {parameter.ds_id for parameter in kept}
    new = {p.ds_id: p for p in parameters if p.ds_id not in known}
    for number in sorted(new):  # as in all processes
        # The second flag holds where DeepSpeed does not know yet what comes next.
        new[number].ds_persist = new[number].is_external_param = True
        kept.append(new[number])
    if kept:
        kept[0].all_gather(kept)


def _check_dtypes(module: nn.Module) -> None:
    found: dict[torch.dtype, str] = {}
    for name, parameter in module.named_parameters():
        found.setdefault(parameter.dtype, name)
    if len(found) > 1:
        names = ', '.join(f'{name} ({dtype})' for dtype, name in found.items())
        raise ValueError(
            f'DeepSpeed shards parameters of a single dtype, but got {names}; store '
            "the model in float32 (model.student.dtype='float32') and compute with "
            "optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16'), or use "
            '--strategy fsdp'
        )


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    kind = type(optimizer).__name__
    if kind not in OPTIMIZERS:
        raise ValueError(
            f'optim_wrapper.optimizer.type="{kind}" does not work with DeepSpeed; '
            f'accepted are {", ".join(OPTIMIZERS)}; others can use --strategy fsdp'
        )
