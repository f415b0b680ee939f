"""Shared parts of ``tools/train.py`` and ``tools/test.py``: configs, processes,
devices."""

import copy
import datetime
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from torch import distributed

from mmtransmamba.utils import safe_load
from mmtransmamba.utils.checkpoint_files import find_resumable, is_complete
from mmtransmamba.utils.config_keys import check_keys, check_options
from mmtransmamba.utils.run_config import check_run

# Variables in which each launcher sets rank, world size and local rank.
_RANK_VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': (
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'OMPI_COMM_WORLD_LOCAL_RANK',
    ),
}
TESTING = ('test_cfg', 'test_dataloader', 'test_evaluator')
"""Keys of a config that has something to test."""
# Libraries whose datasets yield images of many sizes; the others stack the images.
_UNSTACKED = ('mmdet', 'mmseg')
_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def load_config(path: str, work_dir: str | Path | None = None) -> Config:
    """Read a config file and determine the run's work directory.

    Args:
        path: The config file.
        work_dir: Takes precedence over ``work_dir`` in the config, which takes
            precedence over ``work_dirs/NAME-OF-THE-CONFIG``.

    Raises:
        FileNotFoundError: If the file or one of its bases does not exist.
        ValueError: If the file is not a config, or has an unused key; see
            :mod:`mmtransmamba.utils.config_keys`.
    """
    cfg = read_config(path)
    cfg.work_dir = str(
        work_dir or cfg.get('work_dir') or Path('work_dirs') / Path(path).stem
    )
    return cfg


def read_config(path: str | Path, options: dict[str, Any] | None = None) -> Config:
    """Read a config file.

    Args:
        path: The file.
        options: Values that override the config's, by dotted key.

    Raises:
        FileNotFoundError: If the file or one of its bases does not exist.
        ValueError: If the file is not a config, has an unused key, or an option does
            not match any entry.
    """
    if Path(path).is_dir():
        raise ValueError(f'the config "{path}" is a folder; give a file in it')
    if not Path(path).is_file():
        raise FileNotFoundError(f'the config file "{path}" does not exist')
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'cannot read the config "{path}": {error}') from error
    except SyntaxError as error:
        place = f'line {error.lineno}: ' if error.lineno else ''
        raise ValueError(
            f'cannot read the config "{path}": {place}{error.msg}'
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f'cannot read the config "{path}": it is not text in UTF-8: {error.reason} '
            f'at byte {error.start}'
        ) from error
    except Exception as error:
        if Path(path).suffix in ('.json', '.yaml', '.yml') and isinstance(
            error, AttributeError
        ):
            # mmengine takes what the file holds for a mapping.
            raise ValueError(
                f'cannot read the config "{path}": it holds no settings by name'
            ) from error
        # A config is a program, so any error can occur in it.
        raise ValueError(
            f'cannot read the config "{path}": {type(error).__name__}: {error}'
        ) from error
    check_keys(cfg)
    return override(cfg, options)


def override(cfg: Config, options: dict[str, Any] | None) -> Config:
    """Apply the values of ``--cfg-options`` to a config.

    Raises:
        ValueError: If an option does not match any entry of the config, or has no
        effect.
    """
    check_options(cfg, options or {})
    for key, value in (options or {}).items():
        _check_numbers(cfg, key)
        try:
            # Merging takes `_delete_` out of the dicts that it gets.
            cfg.merge_from_dict({key: copy.deepcopy(value)})
        except Exception as error:
            reason = error.args[0] if error.args else error
            raise ValueError(
                f'--cfg-options {key}={value}: the config has no such place ({reason})'
            ) from error
    return cfg


def _check_numbers(cfg: Config, key: str) -> None:
    """Refuse a number that counts the entries of something that is no list.

    mmengine would make it a name.
    """
    first, *parts = key.split('.')
    found: Any = cfg.get(first)
    for i, part in enumerate(parts):
        if part.isdigit() and isinstance(found, dict) and part not in found:
            place = '.'.join([first, *parts[:i]])
            raise ValueError(
                f'--cfg-options {key}: {place} is one entry, no list of them; leave '
                f'out the {part}'
            )
        found = found.get(part) if isinstance(found, dict) else None


def check_checkpoint_file(path: str) -> str:
    """Check that a checkpoint exists and is complete.

    Returns:
        ``path``. A URL is returned without a check.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is truncated or is not a checkpoint. Files in the
            formats of safetensors and of old PyTorch versions are left to their
            readers.
    """
    if '://' in path:
        return path
    if Path(path).is_dir():
        raise ValueError(f'the checkpoint "{path}" is a folder; give a file in it')
    if not Path(path).exists():
        raise FileNotFoundError(f'the checkpoint "{path}" does not exist')
    if not (is_complete(path) or _has_other_format(Path(path))):
        raise ValueError(
            f'the checkpoint "{path}" is incomplete or no checkpoint of torch.save'
        )
    return path


def _has_other_format(path: Path) -> bool:
    if path.suffix == '.safetensors':
        return True
    # Before zip archives, torch.save wrote pickles; many published models still are.
    with path.open('rb') as file:
        return file.read(2)[:1] == b'\x80'


def last_checkpoint(cfg: Config, work_dir: str | Path) -> str | None:
    """The last complete checkpoint of a config's run in a folder.

    The run may keep its checkpoints elsewhere, see
    :func:`~mmtransmamba.utils.checkpoint_files.find_resumable`.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    return find_resumable(work_dir, hook.get('out_dir'))


def resume(cfg: Config) -> None:
    """Resume a run from its last complete checkpoint.

    If there is none, it starts from the beginning and logs this.

    Raises:
        ValueError: All checkpoints in its ``work_dir`` are damaged.
    """
    found = last_checkpoint(cfg, cfg.work_dir)
    if found is None:
        print(f'no checkpoint in "{cfg.work_dir}", training from the start')
    else:
        cfg.load_from = found
    cfg.resume = found is not None


def save_reliably(cfg: Config) -> None:
    """Make a run save its checkpoints with this package's ``CheckpointHook``."""
    hooks = dict(cfg.get('default_hooks') or {})
    # mmengine's default if the config has none.
    hook = hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))
    if hook is not None and hook.get('type') in ('CheckpointHook', None):
        hooks['checkpoint'] = dict(hook, type='mmtransmamba.CheckpointHook')
        cfg.default_hooks = hooks


def prepare(cfg: Config) -> None:
    """Check and complete the config of a run, for any launcher.

    Raises:
        ValueError: See :func:`mmtransmamba.utils.run_config.check_run`.
    """
    check_run(cfg)
    save_reliably(cfg)
    accept_released_checkpoints(cfg)
    watch_numbers(cfg)
    set_dataloader_defaults(cfg)


def use_amp(cfg: Config) -> None:
    """Train with automatic mixed precision.

    Raises:
        ValueError: There is no GPU, or the config sets its own optimizer wrapper.
    """
    if get_device() == 'cpu':
        raise ValueError('--amp needs a GPU; none is available')
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(
            f'--amp replaces optim_wrapper.type "OptimWrapper", the config has '
            f'"{wrapper}"'
        )
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def accept_released_checkpoints(cfg: Config) -> None:
    """Make a run load the file of ``load_from`` or ``--resume``, or refuse it.

    This works for files from any source; see
    :class:`~mmtransmamba.engine.hooks.ReleasedCheckpointHook`.

    Raises:
        FileNotFoundError: ``load_from`` is a path where there is no file.
        ValueError: It is a folder.
    """
    if not cfg.get('load_from') and not cfg.get('resume'):
        return
    hook = dict(type='mmtransmamba.ReleasedCheckpointHook')
    if not cfg.get('resume'):
        # Before an EMAHook, which copies the weights that the file begins with.
        hook['priority'] = 'VERY_HIGH'
    if not cfg.get('resume') and '://' not in cfg.load_from:
        path = Path(cfg.load_from).expanduser()
        if not path.exists():
            raise FileNotFoundError(
                f'load_from="{cfg.load_from}": there is no such file.'
            )
        if path.is_dir() and 'strategy' not in cfg:  # DeepSpeed's are folders
            raise ValueError(f'load_from="{cfg.load_from}" is a folder; give a file.')
        safe_load.use_weights_only(cfg.load_from)
    if hook not in _hooks(cfg):
        cfg.custom_hooks = [*_hooks(cfg), hook]


def watch_numbers(cfg: Config) -> None:
    """Make a training end at the first non-finite number, unless this is disabled.

    See :class:`~mmtransmamba.engine.hooks.NonFiniteHook`;
    ``default_hooks=dict(non_finite=None)`` disables it.
    """
    hooks = dict(cfg.get('default_hooks') or {})
    if hooks.setdefault('non_finite', dict(type='mmtransmamba.NonFiniteHook')) is None:
        # mmengine accepts None for its own hooks only.
        del hooks['non_finite']
    cfg.default_hooks = hooks


def _hooks(cfg: Config) -> list[dict]:
    return list(cfg.get('custom_hooks') or ())


def set_dataloader_defaults(cfg: Config) -> None:
    """Fill in common dataloader settings for the device in use."""
    on_cpu = get_device() == 'cpu'
    stacked = cfg.get('default_scope') not in _UNSTACKED
    collate = 'default_collate' if stacked else 'pseudo_collate'
    for name in _DATALOADERS:
        dataloader = cfg.get(name)
        if dataloader is None:
            continue
        dataloader.setdefault('collate_fn', dict(type=collate))
        dataloader.setdefault('pin_memory', not on_cpu)
        # Without workers, nothing can be kept, and torch refuses the option.
        dataloader.setdefault(
            'persistent_workers', dataloader.get('num_workers', 0) > 0
        )


def init_processes(cfg: Config, launcher: str) -> None:
    """Prepare a run of several processes.

    mmengine starts the process group itself on GPUs and other accelerators. On a
    CPU it would try to select a GPU, so the group is started here, with gloo.

    Args:
        cfg: The config; ``launcher`` is set, and on a CPU ``model_wrapper_cfg``.
        launcher: One of :data:`mmtransmamba.utils.choices.LAUNCHERS`.

    Raises:
        ValueError: If this process was not started by the launcher.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        return
    missing = [name for name in _RANK_VARIABLES[launcher] if name not in os.environ]
    if missing:
        raise ValueError(
            f'--launcher {launcher} needs the environment variables that this '
            f'launcher sets ({", ".join(missing)} not found); start with '
            'tools/dist_train.sh, tools/slurm_train.sh or mpirun'
        )
    # mmengine passes it to torch, which prefers another name since 2.15.
    warnings.filterwarnings('ignore', '`broadcast_buffers` is deprecated')
    if get_device() != 'cpu':
        return
    names = zip(_RANK_VARIABLES['pytorch'], _RANK_VARIABLES[launcher], strict=True)
    for name, source in names:
        os.environ[name] = os.environ[source]
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_host()
    os.environ.setdefault('MASTER_PORT', '29500')
    dist_cfg = cfg.get('env_cfg', {}).get('dist_cfg', {})
    timeout = dist_cfg.get('timeout')
    distributed.init_process_group(
        'gloo', timeout=timeout and datetime.timedelta(seconds=timeout)
    )
    # mmengine's default would name the GPU to use.
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)


def end_processes() -> None:
    """End the process group of a distributed run, which torch asks for."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _first_host() -> str:
    nodes = os.environ.get('SLURM_NODELIST')
    if nodes is None:
        return '127.0.0.1'
    hosts = subprocess.run(
        ['scontrol', 'show', 'hostname', nodes],
        check=True,
        capture_output=True,
        text=True,
    )
    return hosts.stdout.split()[0]
