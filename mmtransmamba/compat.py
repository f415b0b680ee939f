"""Bridges over the breakages of third-party packages, all in one place.

Some packages this project builds on cannot be imported beside the current versions of
each other. A bridge surrounds the import of the one module that needs it: it supplies
what is missing, lets the import run, and removes the supplied names again.
:func:`install_bridges` puts a finder in front of ``sys.meta_path``, so nothing is
imported or changed before that import happens, and nothing at all if upstream has fixed
the problem. ``tests/test_compat.py`` fails for every bridge that is no longer needed or
no longer works.
"""

import functools
import importlib.machinery
import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Bridge = Callable[[Callable[[], None]], None]
"""Takes the function that executes a module, and calls it."""

_BRIDGES: dict[str, Bridge] = {}
# Changes by a bridge that last longer than an import.
_LASTING = {
    'mmengine._strategy.deepspeed',
    'mmengine.config.config',
    'mmengine.config.utils',
    'mmengine.runner.checkpoint',
    'peft.utils.constants',
}
_bridged: set[str] = set()

# The oldest and the newest release that the tests have run with, by series. The tests
# compare these with requirements/oldest.txt and requirements/constraints.txt.
TESTED = {
    'torch': ('2.6', '2.15'),
    'transformers': ('5.21', '5.24'),
    'onedl-mmengine': ('0.10', '0.10'),
    'onedl-mmpretrain': ('1.3', '1.3'),
}

# Distributions whose maintained fork installs into the same folder.
_FORKS = {
    'mmengine': 'onedl-mmengine',
    'mmengine-lite': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmcv-lite': 'onedl-mmcv',
    'mmcv-full': 'onedl-mmcv',
    'mmpretrain': 'onedl-mmpretrain',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
}


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def check_distributions() -> None:
    """Check that no package is installed together with its own fork.

    The ``onedl-*`` forks keep the import names of the original OpenMMLab packages. If
    both are installed, the files of one have overwritten those of the other, and
    imports get a mixture.

    Raises:
        ImportError: If an original and its fork are both installed; the message
            gives the pip commands that repair it.
    """
    mixed = {
        original: fork
        for original, fork in _FORKS.items()
        if _installed(original) and _installed(fork)
    }
    if not mixed:
        return
    forks = sorted(set(mixed.values()))
    raise ImportError(
        'mmtransmamba needs the maintained forks of the OpenMMLab packages, but '
        + ', '.join(f'"{original}"' for original in mixed)
        + ' is installed beside '
        + ', '.join(f'"{fork}"' for fork in forks)
        + ', and they share one folder. Run:\n'
        f'  pip uninstall -y {" ".join([*mixed, *forks])}\n'
        f'  pip install {" ".join(forks)}'
    )


@functools.cache
def check_tested_versions() -> None:
    """Warn once about each package whose release is outside :data:`TESTED`.

    A release is compared by its series, so a newer patch of a tested one is inside.
    Nothing is imported.
    """
    for package, (oldest, newest) in TESTED.items():
        if not _installed(package):
            continue
        version = metadata.version(package)
        if release(oldest) <= release(version) <= release(newest):
            continue
        warnings.warn(
            f'{package} {version} is outside the range that mmtransmamba is tested '
            f'with, {oldest} to {newest}: expect errors or other results. Inside is '
            f'pip install "{package}=={newest}.*"',
            stacklevel=3,
        )


def release(version: str) -> tuple[int, ...]:
    """Major and minor number of a version."""
    return tuple(map(int, version.split('.')[:2]))


def _bridges(module: str) -> Callable[[Bridge], Bridge]:
    def register(bridge: Bridge) -> Bridge:
        _BRIDGES[module] = bridge
        return bridge

    return register


@contextmanager
def _supplied(module: types.ModuleType, **names: Any) -> Iterator[None]:
    """Add those of ``names`` that ``module`` lacks, for the duration of the block."""
    missing = [name for name in names if not hasattr(module, name)]
    for name in missing:
        setattr(module, name, names[name])
    try:
        yield
    finally:
        for name in missing:
            delattr(module, name)


@contextmanager
def _replaced(module: types.ModuleType, name: str, value: Any) -> Iterator[None]:
    """Set the attribute ``name`` of ``module`` for the duration of the block."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _find_pruneable_heads_and_indices(
    heads: Iterable[int], n_heads: int, head_size: int, already_pruned_heads: set[int]
) -> tuple[set[int], Any]:
    """Compute the rows of an attention projection that remain after pruning heads.

    transformers removed this function in version 5; mmpretrain and mmaction
    import it from there.

    Args:
        heads: Heads to prune, numbered as in the unpruned layer.
        n_heads: Number of heads the layer has now.
        head_size: Rows per head.
        already_pruned_heads: Heads pruned before, numbered in the same way.

    Returns:
        The heads that still have to be pruned, and an int64 tensor ``[rows kept]`` with
        the indices of the remaining rows.
    """
    import torch

    to_prune = set(heads) - already_pruned_heads
    gone = {
        head - sum(pruned < head for pruned in already_pruned_heads)
        for head in to_prune
    }
    kept = torch.tensor([head not in gone for head in range(n_heads)], dtype=torch.bool)
    return to_prune, kept.repeat_interleave(head_size).nonzero().flatten()


@_bridges('mmengine.config.utils')
def _announce_to_mmengine_hub(execute: Callable[[], None]) -> None:
    """``mmengine.hub`` and ``_base_ = 'package::…'`` accept only listed packages.

    They know mmseg under the name of its original distribution.
    """
    execute()
    packages = sys.modules['mmengine.config.utils'].MODULE2PACKAGE
    packages.setdefault('mmtransmamba', 'mmtransmamba')
    packages['mmseg'] = _FORKS['mmsegmentation']


@_bridges('mmpretrain.models')
def _restore_transformers_names_for_mmpretrain(execute: Callable[[], None]) -> None:
    """Names that transformers 5 removed and mmpretrain's multi-modal models import.

    mmpretrain imports these models only if pycocotools and transformers are installed.
    Only in that case may transformers be imported here.
    """
    if not import_module('mmpretrain.utils.dependency').WITH_MULTIMODAL:
        execute()
        return
    configuration_utils = import_module('transformers.configuration_utils')
    with (
        _supplied(
            import_module('transformers.pytorch_utils'),
            find_pruneable_heads_and_indices=_find_pruneable_heads_and_indices,
        ),
        _supplied(
            import_module('transformers.modeling_utils'),
            PretrainedConfig=configuration_utils.PreTrainedConfig,
        ),
    ):
        execute()


@_bridges('mmpretrain.datasets')
@_bridges('mmseg.datasets')
@_bridges('mmdet.datasets')
def _drop_debug_print_of_datasets(execute: Callable[[], None]) -> None:
    """The forks print a debug message about an optional package to stdout.

    ``print_log`` without a logger prints regardless of the level.
    """
    mmengine_logging = import_module('mmengine.logging')
    print_log = mmengine_logging.print_log

    def print_log_above_debug(msg, logger=None, level=logging.INFO):
        if logger is not None or level > logging.DEBUG:
            print_log(msg, logger, level)

    with _replaced(mmengine_logging, 'print_log', print_log_above_debug):
        execute()


@_bridges('mmcv.cnn.bricks.transformer')
def _quiet_missing_mmcv_ops(execute: Callable[[], None]) -> None:
    """mmcv from a plain ``pip install`` has no compiled ops and warns at import.

    Nothing here uses deformable attention. mmdet does, and raises its own error.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformable')
        execute()


@_bridges('mmdet.models.dense_heads.clr_head.clr_head')
def _quiet_missing_line_nms(execute: Callable[[], None]) -> None:
    """mmdet warns in the log that a lane detector needs mmcv's compiled ops.

    mmseg, which needs none, imports mmdet where it is installed.
    """
    logger = import_module('mmengine.logging').MMLogger.get_current_instance()

    def not_line_nms(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith('Line NMS is not compiled')

    logger.addFilter(not_line_nms)
    try:
        execute()
    finally:
        logger.removeFilter(not_line_nms)


@_bridges('mmdet.evaluation.metrics.faster_coco_metric')
def _quiet_missing_faster_coco_eval(execute: Callable[[], None]) -> None:
    """mmdet warns that an optional, faster metric is not installed."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'faster_coco_eval is not installed')
        execute()


@_bridges('mmaction')
def _accept_newer_mmcv_in_mmaction(execute: Callable[[], None]) -> None:
    """mmaction 1.2.0 asserts ``mmcv < 2.2.0``; it works with the newer fork.

    Its ``__init__`` only checks versions, so it can be executed again.
    """
    try:
        execute()
    except AssertionError as error:
        if 'MMCV' not in str(error):
            raise
        with _replaced(import_module('mmcv'), '__version__', '2.1.0'):
            execute()


@_bridges('mmaction.models')
def _complete_mmaction_models(execute: Callable[[], None]) -> None:
    """Imports of mmaction 1.2.0 that are missing from its wheel or from transformers.

    The wheel lacks ``localizers/drn``, which breaks the import of all its models.
    """
    names = {}
    if import_module('mmaction.utils.dependency').WITH_MULTIMODAL:
        pytorch_utils = import_module('transformers.pytorch_utils')
        names = {
            'apply_chunking_to_forward': pytorch_utils.apply_chunking_to_forward,
            'prune_linear_layer': pytorch_utils.prune_linear_layer,
            'find_pruneable_heads_and_indices': _find_pruneable_heads_and_indices,
        }
    package_dir = Path(import_module('mmaction').__file__).parent
    drn = 'mmaction.models.localizers.drn.drn'
    lacks_drn = not (package_dir / 'models/localizers/drn').is_dir()
    if lacks_drn:
        sys.modules[drn] = types.ModuleType(drn)
        sys.modules[drn].DRN = _MissingDRN
    try:
        if names:
            with _supplied(import_module('transformers.modeling_utils'), **names):
                execute()
        else:
            execute()
    finally:
        if lacks_drn:
            del sys.modules[drn]


class _MissingDRN:
    """Replaces the DRN localizer that mmaction's wheel lacks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ImportError(
            'DRN is not part of the installed mmaction2; install mmaction2 from '
            'its source repository to use it.'
        )


@_bridges('mmaction.datasets.transforms.processing')
def _let_mmaction_lower_hues(execute: Callable[[], None]) -> None:
    """mmaction 1.2.0 adds a negative number to bytes, which numpy 2 refuses."""
    execute()
    np = import_module('numpy')
    jitter = sys.modules['mmaction.datasets.transforms.processing'].ColorJitter
    original = jitter.adjust_hue
    try:
        original(np.zeros((1, 1, 3), np.float32), -0.1)
    except OverflowError:
        jitter.adjust_hue = staticmethod(functools.wraps(original)(_adjust_hue))


def _adjust_hue(img: Any, factor: float) -> Any:
    """Shift the hue of an RGB image on the scale 0..255, ``[H, W, 3]``.

    As mmaction's ``ColorJitter.adjust_hue``, but the sum cannot overflow.
    """
    np, cv2 = import_module('numpy'), import_module('cv2')
    image = np.clip(img, 0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    # OpenCV has 180 hues.
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + int(factor * 255)) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32)


_MIXER_PROJECTIONS: dict[str, tuple[str, ...]] = {}
"""The modules of a mixer that correspond to each projection of the attention."""


def announce_adapters(projections: dict[str, tuple[str, ...]]) -> None:
    """Register a mixer's adapter targets with PEFT, now or when it is imported.

    Args:
        projections: Modules of the mixer by the module of attention to which they
            correspond.
    """
    for name, modules in projections.items():
        known = _MIXER_PROJECTIONS.get(name, ())
        _MIXER_PROJECTIONS[name] = tuple(dict.fromkeys([*known, *modules]))
    if 'peft.utils.constants' in sys.modules:
        _fill_tables_of_peft()


@_bridges('peft.utils.constants')
def _announce_hybrids_to_peft(execute: Callable[[], None]) -> None:
    """PEFT looks up adapter targets in tables by model type, without a hook.

    A hybrid's targets are those of its Transformer, plus the corresponding modules of
    its mixers.
    """
    execute()
    _fill_tables_of_peft()


def _fill_tables_of_peft() -> None:
    for name, table in vars(sys.modules['peft.utils.constants']).items():
        if not name.endswith('_TARGET_MODULES_MAPPING'):
            continue
        for family in ('llama', 'mistral', 'phi', 'qwen2', 'qwen3'):
            own = table.get(family)
            if isinstance(own, list) and not _MIXER_PROJECTIONS.keys().isdisjoint(own):
                more = [n for o in own for n in _MIXER_PROJECTIONS.get(o, ())]
                table[f'hybrid_{family}'] = list(dict.fromkeys([*own, *more]))


@_bridges('mmengine.runner.checkpoint')
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


@_bridges('mmengine.config.config')
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


@_bridges('mmengine._strategy.deepspeed')
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


class _BridgedLoader:
    """Runs the loader of a module inside its bridge."""

    def __init__(self, loader: Any, bridge: Bridge) -> None:
        self._loader = loader
        self._bridge = bridge

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        # From here on, the module is an ordinary one: pickling, inspect and
        # importlib.resources see the loader they expect.
        module.__spec__.loader = module.__loader__ = self._loader
        _bridged.add(module.__name__)
        self._bridge(lambda: self._loader.exec_module(module))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class _BridgeFinder:
    """Finds the modules that have a bridge, by asking the other finders."""

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        bridge = _BRIDGES.get(fullname)
        if bridge is None:
            return None
        for finder in sys.meta_path:
            # Python 3.10 and 3.11 still accept finders without find_spec.
            if isinstance(finder, _BridgeFinder) or not hasattr(finder, 'find_spec'):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _BridgedLoader(spec.loader, bridge)
                return spec
        return None


def install_bridges() -> None:
    """Make the imports of this process use the bridges; repeated calls do nothing."""
    if not any(isinstance(finder, _BridgeFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BridgeFinder())
    # Modules imported before this package need their bridges nevertheless; bridges that
    # only last for an import come too late.
    for module in _LASTING & sys.modules.keys() - _bridged:
        _bridged.add(module)
        _BRIDGES[module](lambda: None)


class _Notices(logging.Filter):
    """mmengine's hooks use functions that mmengine has deprecated, and its optimizers
    list every frozen parameter, of which a stage's table shows the groups."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (
            message.startswith(('"FileClient" will be', '"HardDiskBackend" is'))
            or message.endswith(' is skipped since its requires_grad=False')
        )


def quiet_logger(logger: logging.Logger) -> None:
    """Keep notices that users cannot act upon out of a Runner's log."""
    logger.addFilter(_Notices())


# State of libraries that has no public name.


def is_resuming(runner: Any) -> bool:
    """Whether a Runner of mmengine continues a run, rather than starting one."""
    return runner._resume


def accumulated_batches(optim_wrapper: Any) -> int:
    """Number of batches of which an optimizer wrapper accumulates the gradients."""
    return getattr(optim_wrapper, '_accumulative_counts', 1)


def set_inner_count(optim_wrapper: Any, count: int) -> None:
    """Set how many iterations an optimizer wrapper of mmengine has counted."""
    optim_wrapper._inner_count = count


def normalizes(preprocessor: Any) -> bool:
    """Whether a data preprocessor of mmengine or mmpretrain normalises images."""
    return getattr(preprocessor, '_enable_normalize', False)


def swaps_channels(preprocessor: Any) -> bool:
    """Whether mmengine's data preprocessor swaps channels; True for another kind."""
    return getattr(preprocessor, '_channel_conversion', True)


def active_ddp() -> Any | None:
    """The DDP wrapper whose forward pass is running, None if there is none."""
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel._get_active_ddp_module()


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is a DTensor, of which each process has a part."""
    return hasattr(tensor, 'full_tensor')


def is_partitioned(tensor: Any) -> bool:
    """Whether a tensor is a parameter that DeepSpeed's ZeRO-3 divides."""
    return hasattr(tensor, 'ds_id')


def is_fully_sharded(module: Any) -> bool:
    """Whether a module's parameters are sharded, gathered by its ``__call__`` alone.

    FSDP2 sets the flag for torch.compile; transformers reads it too. ZeRO-3 numbers the
    modules.
    """
    return getattr(module, '_is_fsdp_managed_module', False) or is_partitioned(module)


def run_load_hooks(module: Any, state: dict[str, Any], prefix: str) -> None:
    """Change a state dict as a module alone does before it loads it.

    Args:
        module: A PyTorch module; its submodules' hooks are not run.
        state: The state dict, changed in place.
        prefix: What the names of the module's tensors begin with there.
    """
    for hook in module._load_state_dict_pre_hooks.values():
        hook(state, prefix, {}, True, [], [], [])


def model_classes(auto_class: Any) -> Any | None:
    """The classes that an auto class of transformers builds, by the class of config.

    Returns:
        None for the class of a model.
    """
    return getattr(auto_class, '_model_mapping', None)
