"""Errors for weights that do not fit, where other libraries only warn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmtransmamba.compat import run_load_hooks
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.values import (
    first_fault,
    first_fault_in,
    is_of_another_kind,
    kinds,
)

_SHOWN = 8
_LAYER = re.compile(r'(?:^|\.)(?:layers|h|blocks)\.(\d+)\.')
WEIGHT = re.compile(r'(?:^|[._])(?:weight|bias)$')
"""Names of tensors that are weights whatever model they belong to."""


def check_fit(model: nn.Module, state_dict: Mapping[str, Tensor], prefix: str) -> None:
    """Check that a state dict has all of a model's tensors and no others.

    The model's own loading hooks may rename or reshape tensors; they are run on a
    copy first. For tensors shared under several names, such as tied embeddings, one
    name is enough.

    Args:
        model: The model.
        state_dict: The state dict that it is about to load.
        prefix: Prefix of the model's tensor names in the state dict.

    Raises:
        CheckpointError: Tensors are missing, unexpected, of another shape, of integers
            instead of the model's real numbers, or contain NaN or infinity.
    """
    state = {key: v for key, v in state_dict.items() if key.startswith(prefix)}
    for name, module in model.named_modules():
        inner = f'{prefix}{name}.' if name else prefix
        run_load_hooks(module, state, inner)
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
    """Check the values of weights that are converted before they are loaded.

    Args:
        state: Tensors of a checkpoint.
        where: Their file, for the message.

    Raises:
        CheckpointError: A weight consists of integers, or has NaN or infinity.
    """
    for name, tensor in state.items():
        if WEIGHT.search(name) and not tensor.is_floating_point():
            raise CheckpointError(
                f'{where}: {name} is {str(tensor.dtype).removeprefix("torch.")}, but '
                'weights are real numbers.'
            )
    fault = first_fault(state.items(), {name for name in state if 'mask' in name})
    if fault is not None:
        raise CheckpointError(f'{where}: {fault}.')


def check_depth(config: Any, names: Iterable[str], where: str | Path) -> None:
    """Check that a checkpoint has tensors for all layers of a language model.

    The check comes first, because building a model without weights can take minutes.

    Args:
        config: Config of a transformers model.
        names: Names of the available tensors.
        where: Their location, for the message.

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


def check_tied(tied: bool, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Check that a head that is tied to the embedding equals it.

    transformers would not tie it, whatever the config says, and a converter would leave
    it out.

    Args:
        tied: ``tie_word_embeddings`` of the config.
        tensors: Tensors of a causal language model.
        where: Their location, for the message.

    Raises:
        CheckpointError: They differ.
    """
    head, words = 'lm_head.weight', 'model.embed_tokens.weight'
    if tied and head in tensors and words in tensors:
        first, second = tensors[head], tensors[words]
        if first.data_ptr() != second.data_ptr() and not torch.equal(first, second):
            raise CheckpointError(
                f'{where}: tie_word_embeddings=True in the config, but {head} is not '
                f'{words}. If the model has a head of its own, set it to false.'
            )


def refuse(
    what: str,
    missing: Sequence[str] = (),
    unexpected: Sequence[str] = (),
    mismatched: Sequence[str] = (),
) -> None:
    """Raise an error that names tensors, if there are any.

    Args:
        what: Start of the error message.
        missing: Tensors of the model that are not in the checkpoint.
        unexpected: Tensors of the checkpoint that are not in the model.
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
