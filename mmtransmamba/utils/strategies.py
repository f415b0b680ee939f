"""The strategies of ``tools/train.py --strategy``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from mmtransmamba.compat import release

RUNNER = 'mmtransmamba.FullyShardedRunner'
WRAPPER = 'mmtransmamba.FullyShardedModel'
ZERO_WRAPPER = 'mmtransmamba.ZeroModel'
OLDEST_DEEPSPEED = (0, 19)
# Hooks that keep or rewrite a copy of the model, which they would find sharded.
_REFUSED_HOOKS = ('EMAHook', 'CompileHook')


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


_CLIP_NORM = {'type', 'max_norm', 'norm_type'}
"""Arguments of ``clip_grad`` that models in parts support for the norm."""


def check_fsdp(cfg: Config) -> None:
    """Check a config whose model is sharded by FSDP.

    Raises:
        ValueError: It has a hook, an optimizer wrapper or ``compile``, which the model
            in parts does not support.
    """
    if str(cfg.get('runner_type')).rpartition('.')[2] != RUNNER.rpartition('.')[2]:
        return
    _check_whole(cfg, 'FSDP')
    if _type_of(cfg.get('model_wrapper_cfg')) == ZERO_WRAPPER.rpartition('.')[2]:
        return
    wrapper = cfg.get('optim_wrapper') or {}
    kind = str(wrapper.get('type', 'OptimWrapper')).rpartition('.')[2]
    if kind not in ('OptimWrapper', 'AutocastOptimWrapper', 'ScaledOptimWrapper'):
        raise ValueError(
            f'optim_wrapper.type="{kind}" does not work with FSDP; accepted are '
            'OptimWrapper, mmtransmamba.AutocastOptimWrapper, '
            'mmtransmamba.ScaledOptimWrapper, and with --strategy fsdp AmpOptimWrapper '
            "of dtype='bfloat16' or 'float16'"
        )
    clip = wrapper.get('clip_grad') or {}
    others = set(clip) - _CLIP_NORM
    if clip.get('type', 'norm') == 'norm' and others:
        raise ValueError(
            f'optim_wrapper.clip_grad.{min(others)} does not work with FSDP; accepted: '
            'max_norm, norm_type'
        )


def _check_whole(cfg: Config, name: str) -> None:
    """Refuse what needs a whole model."""
    for key, hook in _hooks(cfg):
        kind = hook.get('type')
        kind = (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]
        if kind in _REFUSED_HOOKS:
            raise ValueError(f'{key}: {kind} does not work with {name}; leave it out')
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
    if optim.get('type') == 'AmpOptimWrapper':
        if optim.get('dtype') == 'bfloat16':
            optim.type = 'mmtransmamba.AutocastOptimWrapper'
            optim.pop('loss_scale', None)
        elif optim.get('dtype', 'float16') == 'float16':
            optim.type = 'mmtransmamba.ScaledOptimWrapper'
    _round_up(cfg)
    check_fsdp(cfg)


def _use_deepspeed(cfg: Config) -> None:
    if find_spec('deepspeed') is None:
        raise ValueError(
            '--strategy deepspeed needs the package deepspeed, which is not installed; '
            '--strategy fsdp shards the same tensors and needs only PyTorch'
        )
    version = metadata.version('deepspeed')
    if release(version) < OLDEST_DEEPSPEED:
        oldest = '.'.join(map(str, OLDEST_DEEPSPEED))
        raise ValueError(
            f'--strategy deepspeed needs deepspeed {oldest} or later, not {version}'
        )
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
    clip = optim.get('clip_grad') or {}
    others = set(clip) - _CLIP_NORM
    if clip.get('type', 'norm') != 'norm' or clip.get('norm_type', 2) != 2 or others:
        raise ValueError(
            f'optim_wrapper.clip_grad={dict(clip)} does not work with DeepSpeed, which '
            'clips the norm of order 2; accepted: dict(max_norm=…)'
        )
    cfg.runner_type = RUNNER
    cfg.model_wrapper_cfg = dict(type=ZERO_WRAPPER, strategy=_zero_strategy(cfg, clip))
    cfg.pop('strategy', None)
    for key in ('dtype', 'loss_scale'):
        optim.pop(key, None)
    optim.type = 'OptimWrapper'
    _round_up(cfg)


def _zero_strategy(cfg: Config, clip: dict[str, Any]) -> dict[str, Any]:
    """Arguments of mmengine's ``DeepSpeedStrategy``, with those that the user gave."""
    given = {k: v for k, v in (cfg.get('strategy') or {}).items() if k != 'type'}
    zero = dict(stage=3, overlap_comm=True) | dict(given.pop('zero_optimization', {}))
    if zero['stage'] != 3:
        raise ValueError(
            f'strategy.zero_optimization.stage={zero["stage"]} must be 3; --strategy '
            'ddp trains whole models'
        )
    if given.get('gradient_accumulation_steps', 1) != 1:
        raise ValueError(
            'strategy.gradient_accumulation_steps='
            f'{given["gradient_accumulation_steps"]} must be left out; set '
            'optim_wrapper.accumulative_counts'
        )
    config = given.pop('config', {})
    if not isinstance(config, dict):
        raise ValueError(f'strategy.config={config!r} must be a dict')
    config = dict(config)
    if _type_of(cfg.optim_wrapper) != 'OptimWrapper':
        # Unlike DeepSpeed's bf16, it leaves the parameters of scans in float32.
        config.setdefault('torch_autocast', dict(enabled=True, dtype='bfloat16'))
    found = dict(type='mmtransmamba.ZeroStrategy', zero_optimization=zero, **given)
    if config:
        found['config'] = config
    if clip.get('max_norm') is not None:
        found.setdefault('gradient_clipping', clip['max_norm'])
    # The wrapper of the optimizer accumulates.
    found['gradient_accumulation_steps'] = 1
    return found


def _type_of(cfg: dict[str, Any] | None) -> str:
    """The type in a config without its scope; by default that of an OptimWrapper."""
    return str((cfg or {}).get('type', 'OptimWrapper')).rpartition('.')[2]


def _round_up(cfg: Config) -> None:
    """Let every process run the model equally often, or the others wait for it."""
    for name in ('val_dataloader', 'test_dataloader'):
        sampler = (cfg.get(name) or {}).get('sampler') or {}
        if sampler.get('type') == 'DefaultSampler':
            sampler.round_up = True
