"""The strategies of ``tools/train.py --strategy``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

RUNNER = 'mmtransmamba.FullyShardedRunner'
WRAPPER = 'mmtransmamba.FullyShardedModel'
# Hooks that keep or rewrite a copy of the model, which they would find sharded.
_REFUSED_HOOKS = {
    'FSDP': ('EMAHook', 'CompileHook'),
    'DeepSpeed': ('EMAHook', 'CompileHook', 'SubcloneInitializer', 'SaveStudentHook'),
}


def use_strategy(cfg: Config, name: str, launcher: str) -> None:
    """Set up a run for ``ddp``, ``fsdp`` or ``deepspeed``.

    Args:
        cfg: Its config; ``ddp`` leaves it as it is.
        name: One of :data:`~mmtransmamba.utils.choices.STRATEGIES`.
        launcher: The launcher of its processes.

    Raises:
        ValueError: There is only one process, DeepSpeed is not installed, or the config
            has something that the strategy does not support.
    """
    if name == 'ddp':
        return
    if launcher == 'none':
        raise ValueError(
            f'--strategy {name} needs several processes; start them with '
            f'tools/dist_train.sh CONFIG GPUS --strategy {name}'
        )
    if name == 'fsdp':
        _use_fsdp(cfg)
    else:
        _use_deepspeed(cfg)


def check_fsdp(cfg: Config) -> None:
    """Check a config whose model is sharded by FSDP.

    Raises:
        ValueError: It has a hook, an optimizer wrapper or ``compile``, which the model
            in parts does not support.
    """
    if str(cfg.get('runner_type')).rpartition('.')[2] != RUNNER.rpartition('.')[2]:
        return
    _check_whole(cfg, 'FSDP')
    wrapper = cfg.get('optim_wrapper') or {}
    kind = str(wrapper.get('type', 'OptimWrapper')).rpartition('.')[2]
    if kind not in ('OptimWrapper', 'AutocastOptimWrapper'):
        raise ValueError(
            f'optim_wrapper.type="{kind}" does not work with FSDP; accepted are '
            'OptimWrapper, mmtransmamba.AutocastOptimWrapper, and with --strategy fsdp '
            "AmpOptimWrapper of dtype='bfloat16'"
        )


def _check_whole(cfg: Config, name: str) -> None:
    """Refuse what needs a whole model."""
    for key, hook in _hooks(cfg):
        kind = hook.get('type')
        kind = (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]
        if kind in _REFUSED_HOOKS[name]:
            other = '' if kind in _REFUSED_HOOKS['FSDP'] else ', or use --strategy fsdp'
            raise ValueError(
                f'{key}: {kind} does not work with {name}; leave it out{other}'
            )
    if cfg.get('compile'):
        raise ValueError(f'compile does not work with {name}; set compile=False')


def _hooks(cfg: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """The hooks of a config, with their keys."""
    for name, hook in (cfg.get('default_hooks') or {}).items():
        if hook is not None:
            yield f'default_hooks.{name}', hook
    for number, hook in enumerate(cfg.get('custom_hooks') or ()):
        yield f'custom_hooks.{number}', hook


def _use_fsdp(cfg: Config) -> None:
    cfg.runner_type = RUNNER
    wrapper = cfg.get('model_wrapper_cfg') or {}
    if str(wrapper.get('type')).rpartition('.')[2] != WRAPPER.rpartition('.')[2]:
        cfg.model_wrapper_cfg = dict(type=WRAPPER)
    optim = cfg.get('optim_wrapper') or {}
    if optim.get('type') == 'AmpOptimWrapper' and optim.get('dtype') == 'bfloat16':
        optim.type = 'mmtransmamba.AutocastOptimWrapper'
        optim.pop('loss_scale', None)
    # Every process must run the model equally often, or the others wait for it.
    for name in ('val_dataloader', 'test_dataloader'):
        sampler = (cfg.get(name) or {}).get('sampler') or {}
        if sampler.get('type') == 'DefaultSampler':
            sampler.round_up = True
    check_fsdp(cfg)


def _use_deepspeed(cfg: Config) -> None:
    if find_spec('deepspeed') is None:
        raise ValueError(
            '--strategy deepspeed needs the package deepspeed, which is not installed; '
            '--strategy fsdp shards the same tensors and needs only PyTorch'
        )
    from mmengine._strategy import deepspeed as S

    S.register_deepspeed_optimizers = lambda: []
    _check_whole(cfg, 'DeepSpeed')
    optim = cfg.optim_wrapper
    kind = str(optim.get('type', 'OptimWrapper')).rpartition('.')[2]
    autocast = kind in ('AmpOptimWrapper', 'AutocastOptimWrapper')
    if kind != 'OptimWrapper' and not autocast:
        raise ValueError(
            f'optim_wrapper.type="{kind}" does not work with DeepSpeed; accepted are '
            'OptimWrapper, and for autocast AmpOptimWrapper'
        )
    default = 'bfloat16' if kind == 'AutocastOptimWrapper' else 'float16'
    if autocast and optim.get('dtype', default) != 'bfloat16':
        raise ValueError(
            f'optim_wrapper.dtype={optim.get("dtype", default)!r} does not work with '
            "DeepSpeed; accepted: 'bfloat16'"
        )
    cfg.runner_type = 'FlexibleRunner'
    cfg.model_wrapper_cfg = None
    # FlexibleRunner needs it.
    if cfg.get('env_cfg') is None:
        cfg.env_cfg = dict(dist_cfg=dict(backend='nccl'))
    given = {k: v for k, v in (cfg.get('strategy') or {}).items() if k != 'type'}
    cfg.strategy = dict(
        type='DeepSpeedStrategy',
        zero_optimization=dict(
            stage=3, overlap_comm=True, stage3_gather_16bit_weights_on_model_save=True
        ),
        gradient_accumulation_steps=optim.get('accumulative_counts', 1),
    )
    if autocast:
        # Unlike DeepSpeed's bf16, it leaves the parameters of scans in float32.
        cfg.strategy.config = dict(
            torch_autocast=dict(enabled=True, dtype='bfloat16')
        ) | dict(given.pop('config', {}))
    cfg.strategy.update(given)
    clip = (optim.get('clip_grad') or {}).get('max_norm')
    if clip is not None:
        cfg.strategy.setdefault('gradient_clipping', clip)
    cfg.optim_wrapper = dict(
        {
            k: optim[k]
            for k in ('optimizer', 'constructor', 'paramwise_cfg')
            if k in optim
        },
        type='DeepSpeedOptimWrapper',
    )
