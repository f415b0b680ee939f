"""State of libraries that has no public name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


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


def known_scopes() -> set[str]:
    """The scopes of mmengine's registries that have been imported."""
    return set(import_module('mmengine.registry').MODELS._children)


@contextmanager
def unregistered_names(find: Callable[[str], Any]) -> Iterator[None]:
    """Replace mmengine's import of a ``type`` that is not registered.

    Args:
        find: Gives the object of a name, None if there is none.
    """
    module = import_module('mmengine.registry.registry')
    original = module.get_object_from_string
    module.get_object_from_string = find
    try:
        yield
    finally:
        module.get_object_from_string = original
