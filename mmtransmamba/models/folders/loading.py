"""Loading a model from a folder that must contain all of its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from mmtransmamba.compat import model_classes
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.fit import WEIGHT, check_depth, refuse
from mmtransmamba.models.folders.config import read_model_config
from mmtransmamba.models.values import first_fault_in

_REAL = ('F', 'BF')  # prefixes of safetensors' names for floating-point dtypes


def check_folder_weights(folder: str | Path, model: nn.Module) -> None:
    """Check the weights that transformers has read from a folder.

    Args:
        folder: Folder of a transformers model.
        model: The model read from it.

    Raises:
        CheckpointError: A weight in the folder consists of integers, which
            transformers has converted to real numbers, or has NaN or infinity.
    """
    fault = first_fault_in(model)
    if fault is not None:
        raise CheckpointError(f'The weights in "{folder}": {fault}.')
    if getattr(model.config, 'quantization_config', None) is not None:
        return
    own = model.state_dict()
    for name, dtype in _dtypes(folder).items():
        real = dtype.startswith(_REAL)
        if not real and (
            own[name].is_floating_point() if name in own else WEIGHT.search(name)
        ):
            raise CheckpointError(
                f'The weights in "{folder}": {name} is of the dtype {dtype}, but the '
                'model has real numbers.'
            )


def _dtypes(folder: str | Path) -> dict[str, str]:
    """Dtypes of the tensors in a folder's ``.safetensors``, by name."""
    from safetensors import SafetensorError, safe_open

    dtypes = {}
    for file in sorted(Path(folder).glob('*.safetensors')):
        try:
            with safe_open(file, framework='pt') as tensors:
                dtypes |= {
                    name: tensors.get_slice(name).get_dtype()
                    for name in tensors.keys()  # noqa: SIM118  (not a mapping)
                }
        except SafetensorError as error:
            raise CheckpointError(
                f'{file} cannot be read as safetensors: {error}'
            ) from error
    return dtypes


def load_folder(
    auto_class: Any,
    folder: str | Path,
    ignored: Callable[[str], bool] = lambda name: False,
) -> nn.Module:
    """The model in a folder, which must contain all of its tensors.

    Nothing is downloaded, and no code in the folder is run. transformers would only
    warn of tensors that do not fit, and initialise missing ones at random.

    Args:
        auto_class: Class of transformers whose ``from_pretrained`` reads it.
        folder: Folder of a transformers model.
        ignored: Predicate on the names of tensors in the folder that are not used.

    Raises:
        FileNotFoundError: The folder or its config does not exist.
        ValueError: The folder's config cannot be read, or its model is of another
            kind.
        CheckpointError: Tensors are missing, unexpected, of another shape or of
            integers, or have NaN or infinity.
    """
    read_model_config(folder)
    config = _check_kind(auto_class, folder)
    check_depth(config, _dtypes(folder), folder)
    # The folder's own dtype, transformers' default since version 5.
    model, found = auto_class.from_pretrained(
        str(folder),
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # they are reported below
        output_loading_info=True,
    )
    # A tensor tied to another one is not missing.
    refuse(
        f'The weights in "{folder}" do not fit its config',
        missing=sorted(found['missing_keys']),
        unexpected=sorted(k for k in found['unexpected_keys'] if not ignored(k)),
        mismatched=sorted(
            f'{key} (file {list(given)}, config {list(wanted)})'
            for key, given, wanted in found['mismatched_keys']
        ),
    )
    check_folder_weights(folder, model)
    return model


def _check_kind(auto_class: Any, folder: str | Path) -> Any:
    """Refuse a model by name, where transformers would list all that it supports.

    Returns:
        The model's config.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    known = model_classes(auto_class)
    # If these are missing, it is the class of a model itself.
    if known is not None and type(config) not in known:
        raise ValueError(
            f'The model in "{folder}" is a {config.model_type!r}, but it must be one '
            f'that {auto_class.__name__} reads.'
        )
    return config
