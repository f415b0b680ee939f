"""Bridges of mmengine."""

import functools
import sys
import types
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .bridging import bridges
from .versions import FORKS


@bridges('mmengine.config.utils', lasts=True)
def _announce_to_mmengine_hub(execute: Callable[[], None]) -> None:
    """``mmengine.hub`` and ``_base_ = 'package::…'`` accept only listed packages.

    They know mmseg under the name of its original distribution.
    """
    execute()
    packages = sys.modules['mmengine.config.utils'].MODULE2PACKAGE
    packages.setdefault('mmtransmamba', 'mmtransmamba')
    packages['mmseg'] = FORKS['mmsegmentation']


@bridges('mmengine.runner.checkpoint', lasts=True)
def _guard_checkpoints_of_mmengine(execute: Callable[[], None]) -> None:
    """mmengine's reading, writing and lookup of checkpoints.

    It reads with ``weights_only=True``, but allows ``getattr``. On an error, it reads
    again with a pickle that runs whatever the file names. It writes a checkpoint in
    place, over the previous one. It uses the path in ``last_checkpoint`` as it is.
    """
    execute()
    module = sys.modules['mmengine.runner.checkpoint']

    def _safe_torch_load(file, map_location=None, weights_only=None):
        safe_load = import_module('mmtransmamba.utils.safe_load')
        return safe_load.load_file(file, map_location)

    def load_url(
        url,
        model_dir=None,
        map_location=None,
        progress=True,
        check_hash=False,
        file_name=None,
    ):
        downloads = import_module('mmtransmamba.utils.downloads')
        path = downloads.fetch(url, model_dir, progress, check_hash, file_name)
        return _safe_torch_load(path, map_location)

    @functools.wraps(module.save_checkpoint)
    def save_checkpoint(checkpoint, filename, file_client_args=None, backend_args=None):
        if file_client_args is None and backend_args is None and '://' not in filename:
            checkpoint_files = import_module('mmtransmamba.utils.checkpoint_files')
            checkpoint_files.save(checkpoint, filename)
        else:
            original_save(checkpoint, filename, file_client_args, backend_args)

    def find_latest_checkpoint(path):
        checkpoint_files = import_module('mmtransmamba.utils.checkpoint_files')
        return checkpoint_files.find_resumable(path)

    original_save = module.save_checkpoint
    for replacement in (
        _safe_torch_load,
        load_url,
        save_checkpoint,
        find_latest_checkpoint,
    ):
        _replace_in_mmengine(module, replacement)


@bridges('mmengine.config.config', lasts=True)
def _run_no_config_of_a_checkpoint(execute: Callable[[], None]) -> None:
    """mmengine runs, as Python, the config that a checkpoint holds as text.

    ``Runner.resume`` does this with ``meta['config']``, and inferencers do it with
    ``meta['cfg']``.
    """
    execute()
    config = sys.modules['mmengine.config.config'].Config
    original = config.fromstring

    def fromstring(cfg_str: str, file_format: str) -> Any:
        safe_load = sys.modules.get('mmtransmamba.utils.safe_load')
        if file_format == '.py' and safe_load and not safe_load.trusts_files():
            safe_load.check_config(cfg_str)
        return original(cfg_str, file_format)

    config.fromstring = staticmethod(functools.wraps(original)(fromstring))


@bridges('mmengine._strategy.deepspeed', lasts=True)
def _register_optimizers_of_deepspeed(execute: Callable[[], None]) -> None:
    """DeepSpeed 0.19 has no one-bit optimizers, which mmengine registers by name."""
    execute()
    module = sys.modules['mmengine._strategy.deepspeed']
    if module.deepspeed is None or find_spec('deepspeed.runtime.fp16.onebit'):
        return

    def register_deepspeed_optimizers() -> list[str]:
        adam = import_module('deepspeed.ops.adam')
        lamb = import_module('deepspeed.ops.lamb')
        found = [adam.DeepSpeedCPUAdam, adam.FusedAdam, lamb.FusedLamb]
        for optimizer in found:
            module.OPTIMIZERS.register_module(module=optimizer, force=True)
        return [optimizer.__name__ for optimizer in found]

    module.register_deepspeed_optimizers = register_deepspeed_optimizers


def _replace_in_mmengine(module: types.ModuleType, replacement: Callable) -> None:
    """Replace a function of mmengine, including where it has been imported."""
    name = replacement.__name__
    original = getattr(module, name)
    setattr(module, name, replacement)
    for other in list(sys.modules.values()):
        if getattr(other, '__name__', '').startswith('mmengine.'):
            if vars(other).get(name) is original:
                setattr(other, name, replacement)
