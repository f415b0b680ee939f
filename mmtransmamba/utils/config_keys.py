"""Checks for unused and misspelt keys of a config.

mmengine's Runner takes the keys it knows from a config and silently ignores all others.
But a config may define variables for its own use, and a dumped config still contains
them. Hence the rule:

* Keys added on the command line (``--cfg-options``) must be known or in the config.
* Parts of a config whose keys are fixed must have no others.
* A file may define any other key, unless it is almost spelt like a known key and the
  files do not use it as a variable, or unless mmengine has replaced it since 0.x.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.runner import Runner, TestLoop, ValLoop
from torch.distributed import init_process_group

from mmtransmamba.utils.near_names import did_you_mean

# Read by mmengine from the config itself, by the libraries' tools, or by this package.
_BESIDE_RUNNER = (
    *('custom_imports', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn'),
    *('compile', 'efficient_conv_bn_eval', 'runner_type', 'strategy', 'gpu_ids'),
    *('tta_model', 'tta_pipeline', 'train_pipeline', 'val_pipeline', 'test_pipeline'),
    *('vis_backends', 'load_skip', 'log_name'),
)
# Keys of mmcv 1.x, each with its replacement.
_REPLACED = {
    'checkpoint_config': 'default_hooks.checkpoint',
    'dist_params': 'env_cfg.dist_cfg',
    'log_config': 'default_hooks.logger',
    'lr_config': 'param_scheduler',
    'optimizer_config': 'optim_wrapper.clip_grad',
    'resume_from': 'load_from together with resume=True',
    'total_epochs': 'train_cfg.max_epochs',
    'workflow': 'train_cfg',
}
_CONSTRUCTORS = ('', 'DefaultOptimWrapperConstructor', 'NoWeightDecayConstructor')
# What these read of ``paramwise_cfg``.
_PARAMWISE = (
    *('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult'),
    *('dwconv_decay_mult', 'flat_decay_mult', 'bypass_duplicate'),
    'dcn_offset_lr_mult',
)
_CLOSE = 0.8
# Keys that every training has, even if its config does not set them.
_DEFAULT_HOOKS = {
    *('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler'),
    *('checkpoint', 'non_finite'),
}


def known_keys() -> set[str]:
    """Top-level keys of a config that are read."""
    return set(inspect.signature(Runner).parameters) | set(_BESIDE_RUNNER)


def check_keys(cfg: Config) -> None:
    """Refuse misspelt and replaced keys of a config.

    Raises:
        ValueError: There is such a key; the message names it and the right one.
    """
    known = known_keys()
    # A pipeline is a variable like any other, even if a tool reads it.
    spelt = [key for key in known if not key.endswith('pipeline')]
    for key in cfg:
        if key in known or _is_used(key, cfg.text):
            continue
        if key in _REPLACED:
            raise ValueError(
                f'the config has "{key}", which nobody reads since mmengine; set '
                f'{_REPLACED[key]}'
            )
        hint = did_you_mean(key, spelt, cutoff=_CLOSE)
        if hint:
            raise ValueError(f'the config has "{key}", which nobody reads{hint}')


def check_inner_keys(cfg: Config) -> None:
    """Refuse keys that nobody reads inside the parts of a config with fixed keys.

    Raises:
        ValueError: There is such a key; the message names it and the right one.
    """
    for place, known in _inner_keys(cfg).items():
        part = entry_at(cfg, place)
        for key in part if isinstance(part, Mapping) else ():
            if key not in known:
                raise ValueError(
                    f'{place}.{key} is read by nobody{did_you_mean(key, known)}; '
                    f'accepted: {", ".join(sorted(known))}'
                )


def _inner_keys(cfg: Config) -> dict[str, set[str]]:
    """Names of the arguments that mmengine reads in each of these parts."""
    known = {
        'auto_scale_lr': {'base_batch_size', 'enable'},
        'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
        'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
        'env_cfg.dist_cfg': {'port'}
        | set(inspect.signature(init_dist).parameters)
        | set(inspect.signature(init_process_group).parameters) - {'rank'},
        'randomness': {'seed', 'diff_rank_seed', 'deterministic'},
    }
    for name, loop in (('val_cfg', ValLoop), ('test_cfg', TestLoop)):
        if 'type' not in (cfg.get(name) or {}):
            known[name] = set(inspect.signature(loop).parameters)
    constructor = (cfg.get('optim_wrapper') or {}).get('constructor') or ''
    if str(constructor).rpartition('.')[2] in _CONSTRUCTORS:
        known['optim_wrapper.paramwise_cfg'] = set(_PARAMWISE)
    return known


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse ``--cfg-options`` that have no reader.

    Raises:
        ValueError: The first part of a key is neither known nor in the config, or a
            term or hook to be switched off does not exist.
    """
    known = known_keys() | set(cfg)
    for key, value in options.items():
        first = key.split('.')[0]
        if first not in known:
            raise ValueError(
                f'--cfg-options {key}: nobody reads "{first}"'
                f'{did_you_mean(first, known)}'
            )
        if value is None:
            _check_removable(cfg, key)


def _check_removable(cfg: Config, key: str) -> None:
    """Refuse to switch off a missing entry, because that has no effect."""
    place, _, last = key.rpartition('.')
    found = entry_at(cfg, place)
    switches = place.rpartition('.')[2]  # others are arguments, which may be None
    known = {'terms': set(), 'default_hooks': _DEFAULT_HOOKS}.get(switches)
    if known is None or not isinstance(found, Mapping):
        return
    known = known | set(found)
    if last not in known:
        raise ValueError(
            f'--cfg-options {key}=None has no effect: {place} has no '
            f'"{last}"{did_you_mean(last, known)}'
        )


def entry_at(fields: Config | Mapping[str, Any], place: str) -> Any:
    """The entry of a config at a dotted key; None if there is no such place."""
    found: Any = fields
    for name in place.split('.'):
        found = found.get(name) if isinstance(found, Config | Mapping) else None
    return found


def _is_used(name: str, text: str) -> bool:
    """Whether config files use a variable that they define."""
    code = re.sub(r'#[^\n]*', '', text)
    return re.search(rf'\b{re.escape(name)}\b(?!\s*=[^=])', code) is not None
