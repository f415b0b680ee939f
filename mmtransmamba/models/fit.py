"""Refusal of weights that do not fit, which others would load with a warning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.values import (
    first_fault,
    first_fault_in,
    is_of_another_kind,
    kinds,
)

_SHOWN = 8
_LAYER = re.compile(r'(?:^|\.)(?:layers|h|blocks)\.(\d+)\.')
# Tensors that are weights whatever model they belong to.
_WEIGHT = re.compile(r'(?:^|[._])(?:weight|bias)$')
_REAL = ('F', 'BF')  # beginnings of the names that safetensors has for real numbers


def check_fit(model: nn.Module, state_dict: Mapping[str, Tensor], prefix: str) -> None:
    """Check that a state dict has all of a model's tensors and no others.

    The model's own loading hooks may rename or reshape tensors; they are run on a
    copy first. Of tensors that are one and the same, as tied embeddings, one is
    enough.

    Args:
        model: The model.
        state_dict: What it is about to load.
        prefix: What its tensors' names begin with there.

    Raises:
        CheckpointError: Tensors are missing, unexpected, of another shape or of
            integers where the model has real numbers, or have NaN or infinity.
    """
    state = {key: v for key, v in state_dict.items() if key.startswith(prefix)}
    for name, module in model.named_modules():
        inner = f'{prefix}{name}.' if name else prefix
        for hook in module._load_state_dict_pre_hooks.values():
            hook(state, inner, {}, True, [], [], [])
    state = {key.removeprefix(prefix): value for key, value in state.items()}
    own = model.state_dict(keep_vars=True)
    given = {id(own[key]) for key in state if key in own}
    refuse(
        f'The checkpoint does not fit {type(model).__name__}',
        missing=[
            key
            for key, value in own.items()
            if id(value) not in given and not key.endswith('num_batches_tracked')
        ],
        unexpected=[key for key in state if key not in own],
        mismatched=[
            f'{key} (checkpoint {list(value.shape)}, model {list(own[key].shape)})'
            for key, value in state.items()
            if key in own and value.shape != own[key].shape
        ]
        + [
            f'{key} ({kinds(value, own[key], "checkpoint")})'
            for key, value in state.items()
            if key in own
            and value.shape == own[key].shape
            and is_of_another_kind(value, own[key])
        ],
    )
    fault = first_fault_in(model, state)
    if fault is not None:
        raise CheckpointError(f'The checkpoint of {type(model).__name__}: {fault}.')


def check_weights(state: Mapping[str, Tensor], where: str | Path) -> None:
    """Check the values of weights that are not loaded as they are.

    Args:
        state: Tensors of a checkpoint.
        where: Its file, for the message.

    Raises:
        CheckpointError: A weight consists of integers, or has NaN or infinity.
    """
    for name, tensor in state.items():
        if _WEIGHT.search(name) and not tensor.is_floating_point():
            raise CheckpointError(
                f'{where}: {name} is {str(tensor.dtype).removeprefix("torch.")}, but '
                'weights are real numbers.'
            )
    fault = first_fault(state.items(), {name for name in state if 'mask' in name})
    if fault is not None:
        raise CheckpointError(f'{where}: {fault}.')


def check_depth(config: Any, names: Iterable[str], where: str | Path) -> None:
    """Check that there are tensors for all layers of a language model.

    To build a model only to find that it has no weights can take minutes.

    Args:
        config: Config of a transformers model.
        names: Names of the tensors there are.
        where: Where they are, for the message.

    Raises:
        CheckpointError: There are fewer layers.
    """
    depth = getattr(config.get_text_config(), 'num_hidden_layers', None)
    found = [int(m[1]) for m in map(_LAYER.search, names) if m]
    if isinstance(depth, int) and found and depth > max(found) + 1:
        raise CheckpointError(
            f'{where}: num_hidden_layers={depth} in the config, but the weights are '
            f'those of {max(found) + 1} layers.'
        )


def check_folder_weights(folder: str | Path, model: nn.Module) -> None:
    """Check the weights that transformers has read from a folder.

    Args:
        folder: Folder of a transformers model.
        model: What was read from it.

    Raises:
        CheckpointError: A weight in the folder consists of integers, which
            transformers has turned into real numbers, or has NaN or infinity.
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
            own[name].is_floating_point() if name in own else _WEIGHT.search(name)
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
                    for name in tensors.keys()  # noqa: SIM118  (no mapping)
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
    """The model in a folder, all of whose tensors come from there.

    Nothing is downloaded, and no code in the folder is run. transformers would only
    warn of tensors that do not fit, and draw at random those that are missing.

    Args:
        auto_class: Class of transformers whose ``from_pretrained`` reads it.
        folder: Folder of a transformers model.
        ignored: Tells by the name which tensors of the folder are of no use.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The folder's model is of another kind.
        CheckpointError: Tensors are missing, unexpected, of another shape or of
            integers, or have NaN or infinity.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'No model folder at {folder}.')
    config = _check_kind(auto_class, folder)
    check_depth(config, _dtypes(folder), folder)
    # The folder's own dtype: transformers' default since version 5.
    model, found = auto_class.from_pretrained(
        str(folder),
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # they are named below
        output_loading_info=True,
    )
    # What is tied to another tensor does not count as missing.
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
    """Refuse by its name what transformers refuses with all that it knows.

    Returns:
        The model's config.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    known = getattr(auto_class, '_model_mapping', None)
    # Without them it is the class of a model itself.
    if known is not None and type(config) not in known:
        raise ValueError(
            f'The model in "{folder}" is a {config.model_type!r}, but it must be one '
            f'that {auto_class.__name__} reads.'
        )
    return config


def refuse(
    what: str, missing: list[str], unexpected: list[str], mismatched: list[str]
) -> None:
    """Raise an error that names tensors, if there are any.

    Args:
        what: The error's beginning.
        missing: Tensors that the model has and the checkpoint has not.
        unexpected: The reverse.
        mismatched: Tensors of different shapes.

    Raises:
        CheckpointError: There is one.
    """
    parts = []
    for title, names in (
        ('missing', missing),
        ('unexpected', unexpected),
        ('of another shape', mismatched),
    ):
        if names:
            more = ', …' if len(names) > _SHOWN else ''
            parts.append(f'{len(names)} {title}: {", ".join(names[:_SHOWN])}{more}')
    if parts:
        raise CheckpointError(f'{what}: {"; ".join(parts)}.')
