"""Reading checkpoints from any container, and loading them without silent gaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mmtransmamba.compat import run_load_hooks
from mmtransmamba.models.checkpoint_names import (
    AmbiguousNamesError,
    names_of_model,
    unwrapped_names,
)
from mmtransmamba.models.values import first_fault_in, is_of_another_kind, kinds
from mmtransmamba.utils import safe_load

CONTAINERS = (
    'state_dict',
    'model',
    'model_ema',
    'module',
    'model_state_dict',
    'ema_state_dict',
    'state_dict_ema',
    'ema',
    'student',
    'net',
)


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit the model."""


def _is_state_dict(obj: object) -> bool:
    return (
        isinstance(obj, Mapping)
        and len(obj) > 0
        and all(isinstance(value, Tensor) for value in obj.values())
        # An optimizer numbers its tensors.
        and all(isinstance(key, str) for key in obj)
    )


def read_state_dict(
    path: str | Path, container: str | None = None
) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file onto the CPU.

    Args:
        path: ``.safetensors``, or a ``torch.save`` file that contains a flat state
            dict, possibly nested under names of ``CONTAINERS``. Other contents, such as
            the arguments of a training script, are not executed; see
            :func:`mmtransmamba.utils.safe_load.load_file`. The prefixes of wrapped and
            averaged models (``module.``, ``_orig_mod.`` and the like) are removed.
        container: Container to read if a file has several (``'model_ema'`` next to
            ``'model'``), or another one, such as ``'ema_state_dict'``; by default the
            first existing one, in the order of ``CONTAINERS``, or else the only one.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The file cannot be read, has no state dict (of this name), or
            a tensor in it is sparse or has no data.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'No checkpoint file at {path}.')
    if path.suffix == '.safetensors':
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(
                f'{path} cannot be read as safetensors: {error}'
            ) from error
    else:
        try:
            content = safe_load.load_file(path, foreign='inert')
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        state = find_state_dict(content, path, container)
    return _unwrapped(state, path)


def _unwrapped(state: dict[str, Tensor], name: str | Path) -> dict[str, Tensor]:
    """The names without the prefixes of a wrapped or averaged model."""
    for key, value in state.items():
        if value.is_meta or value.layout is not torch.strided:
            kind = 'has no data' if value.is_meta else f'is a tensor of {value.layout}'
            raise CheckpointError(f'{name}: {key} {kind}; accepted are dense tensors.')
    try:
        return unwrapped_names(state)
    except AmbiguousNamesError as error:
        raise CheckpointError(f'{name} is ambiguous: {error}.') from error


def _within(container: object, depth: int = 2) -> dict[str, Tensor] | None:
    """The state dict of a container, which may be nested, as in an averaged model."""
    if _is_state_dict(container):
        return dict(container)
    if not isinstance(container, Mapping) or not depth:
        return None
    nested = (container[name] for name in CONTAINERS if name in container)
    found = (_within(inner, depth - 1) for inner in nested)
    return next((state for state in found if state is not None), None)


def find_state_dict(
    content: object, path: str | Path, container: str | None = None
) -> dict[str, Tensor]:
    """The state dict in the contents of a checkpoint file; see :func:`read_state_dict`.

    Raises:
        CheckpointError: There is no state dict; the message names ``path``.
    """
    wanted = CONTAINERS if container is None else (container,)
    if isinstance(content, Mapping):
        for candidate in (content[name] for name in wanted if name in content):
            found = _within(candidate)
            if found is not None:
                return found
        if container is None:
            flat = {
                key: value
                for key, value in content.items()
                if isinstance(key, str) and isinstance(value, Tensor)
            }
            if flat:
                return flat
            others = {name: _within(value) for name, value in content.items()}
            others = {name: v for name, v in others.items() if v is not None}
            if len(others) == 1:
                return others.popitem()[1]
            if others:
                raise CheckpointError(
                    f'{path} holds several state dicts: '
                    f'{", ".join(map(repr, others))}. Save the one that is meant by '
                    'itself.'
                )
    where = f'under one of {", ".join(CONTAINERS)}'
    if container is not None:
        has = list(content) if isinstance(content, Mapping) else type(content).__name__
        where = f'under {container!r}; it has {has}'
    else:
        where = f'flat or {where}'
    raise CheckpointError(
        f'{path} holds no state dict: expected a mapping of names to tensors, {where}.'
    )


@dataclass
class LoadReport:
    """Report of :func:`load_pretrained`, by names of the model's tensors.

    Attributes:
        loaded: Tensors loaded unchanged.
        converted: Tensors changed (renamed, reshaped, resampled), with the change.
        missing: Tensors of the model that are not in the file.
        left_over: Tensors of the file that are not in the model.
        mismatched: Tensors of different shape, with both shapes, or with integers
            instead of real numbers, with both dtypes.
    """

    loaded: list[str] = field(default_factory=list)
    converted: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    mismatched: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f'{len(self.loaded)} tensors loaded']
        for title, names in (
            ('converted', [f'{k} ({v})' for k, v in self.converted.items()]),
            ('missing in the file', self.missing),
            ('left over in the file', self.left_over),
            (
                'of another shape or kind',
                [f'{k} ({v})' for k, v in self.mismatched.items()],
            ),
        ):
            if names:
                shown = ', '.join(names[:8]) + (', …' if len(names) > 8 else '')
                lines.append(f'{len(names)} {title}: {shown}')
        return '; '.join(lines)


def _conversion(key: str, value: Tensor, given: dict[str, Tensor]) -> str | None:
    """The difference between a tensor and the file's, None if there is none."""
    if key in given:
        if value is given[key]:
            return None
        return f'{tuple(given[key].shape)} to {tuple(value.shape)}'
    pointer = value.data_ptr()
    old = next((k for k, v in given.items() if v.data_ptr() == pointer), None)
    if old is None:
        return 'made from others'
    shape = tuple(given[old].shape)
    note = '' if shape == value.shape else f', {shape} to {tuple(value.shape)}'
    return f'named {old}{note}'


@contextmanager
def _told_grid(module: nn.Module, grid: tuple[int, int] | None) -> Iterator[None]:
    """Set the grid of the position embedding that a backbone is about to load."""
    if grid is None or not hasattr(module, 'loaded_pos_embed_grid'):
        yield
        return
    before = module.loaded_pos_embed_grid
    module.loaded_pos_embed_grid = tuple(grid)
    try:
        yield
    finally:
        module.loaded_pos_embed_grid = before


def _run_hooks(
    model: nn.Module, state: dict[str, Tensor], grid: tuple[int, int] | None
) -> None:
    """The effect of the model's loading hooks on a state dict."""
    for prefix, module in model.named_modules():
        prefix = prefix + '.' if prefix else ''
        with _told_grid(module, grid):
            run_load_hooks(module, state, prefix)


def load_pretrained(
    model: nn.Module,
    checkpoint: str | Path | Mapping[str, Tensor],
    allow_left_over: tuple[str, ...] = ('head.', 'neck.', 'distiller.'),
    container: str | None = None,
    pos_embed_grid: tuple[int, int] | None = None,
    name: str = 'the state dict',
) -> LoadReport:
    """Load a released or trained checkpoint, refusing any silent mismatch.

    Args:
        model: A backbone or a classifier.
        checkpoint: A file (see :func:`read_state_dict`) or a state dict. A
            prefix such as ``backbone.``, ``model.`` or ``student.`` is removed if the
            model's names do not have it.
        allow_left_over: Prefixes of the file's tensors that the model may lack: by
            default the head when a backbone is loaded, and a distiller's aligners.
            A backbone adds its own (``allowed_left_over``), and may lack tensors it
            creates for other uses (``allowed_missing``).
        container: See :func:`read_state_dict`.
        pos_embed_grid: Rows and columns of the checkpoint's position embedding. By
            default one of the model's shape has the model's grid, any other a square
            one; give it if both have as many positions in another shape.
        name: What errors call a state dict; a file has its own name.

    Returns:
        The report. Tensors changed by the model's own loading hooks (a resampled
        ``pos_embed``, a legacy name) are listed as converted.

    Raises:
        CheckpointError: A tensor is missing, left over, of another shape or of
            integers beyond what was allowed, or a weight has NaN or infinity. The
            model is then unchanged.
    """
    own = model.state_dict()
    if isinstance(checkpoint, Mapping):
        state = dict(checkpoint)
    else:
        name, state = str(checkpoint), read_state_dict(checkpoint, container)
    try:
        state = names_of_model(_unwrapped(state, name), own)
    except AmbiguousNamesError as error:
        raise CheckpointError(f'{name} is ambiguous: {error}.') from error
    given = dict(state)

    try:
        _run_hooks(model, state, pos_embed_grid)
    except Exception as error:
        # Hooks of other packages may fail with arbitrary errors on the weights of
        # another architecture.
        raise CheckpointError(
            f'{name} does not fit {type(model).__name__}: '
            f'{error or type(error).__name__}'
        ) from error

    report = LoadReport()
    for key, value in own.items():
        if key not in state:
            if not key.endswith('num_batches_tracked'):
                report.missing.append(key)
        elif state[key].shape != value.shape:
            report.mismatched[key] = (
                f'file {tuple(state[key].shape)}, model {tuple(value.shape)}'
            )
        elif is_of_another_kind(state[key], value):
            report.mismatched[key] = kinds(state[key], value, 'file')
        else:
            how = _conversion(key, state[key], given)
            if how is None:
                report.loaded.append(key)
            else:
                report.converted[key] = how
    report.left_over = [key for key in state if key not in own]

    allow_left_over += getattr(model, 'allowed_left_over', ())
    allow_missing = getattr(model, 'allowed_missing', ())
    refused = (
        [key for key in report.missing if not key.startswith(allow_missing)]
        + [key for key in report.left_over if not key.startswith(allow_left_over)]
        + list(report.mismatched)
    )
    if refused or not (report.loaded or report.converted):
        raise CheckpointError(
            f'{name} does not fit {type(model).__name__}: {report}. Nothing was loaded.'
        )
    taken = {key: value for key, value in state.items() if key in own}
    fault = first_fault_in(model, taken)
    if fault is not None:
        raise CheckpointError(f'{name}: {fault}. Nothing was loaded.')
    model.load_state_dict({**own, **taken})
    return report
