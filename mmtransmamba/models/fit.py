"""Refusal of weights that do not fit, which others would load with a warning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmtransmamba.models.checkpoint import CheckpointError

_SHOWN = 8


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
        CheckpointError: Tensors are missing, unexpected or of another shape.
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
        ],
    )


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
        CheckpointError: Tensors are missing, unexpected or of another shape.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'No model folder at {folder}.')
    _check_kind(auto_class, folder)
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
    return model


def _check_kind(auto_class: Any, folder: str | Path) -> None:
    """Refuse by its name what transformers refuses with all that it knows."""
    known = getattr(auto_class, '_model_mapping', None)
    if known is None:  # the class of a model itself
        return
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    if type(config) not in known:
        raise ValueError(
            f'The model in "{folder}" is a {config.model_type!r}, but it must be one '
            f'that {auto_class.__name__} reads.'
        )


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
