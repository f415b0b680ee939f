"""Selection of the implementation of an op, with the reasons against the others.

Every op registers a table of backends, best first. A backend is a module with

* ``unavailable() -> str | None``: why it cannot run in this process at all,
* ``refuses(tensors) -> str | None``: why it cannot take these tensors,

and the functions of its op. A backend module must import without its optional
dependencies; ``unavailable`` checks for them.

The backend is chosen by, in order of precedence: the ``backend=`` argument of the op,
:func:`use_backend`, the environment variable ``MMTRANSMAMBA_BACKEND``, and finally
the first backend of the table that is available and takes the tensors.
"""

import functools
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

import torch

ENV_VAR = 'MMTRANSMAMBA_BACKEND'

_TABLE: dict[str, dict[str, ModuleType]] = {}
_forced: list[str] = []


def register(op: str, table: dict[str, ModuleType]) -> None:
    """Register the backends of an op.

    Args:
        op (str): Name of the op.
        table (dict[str, ModuleType]): Backend modules by name, best first.
    """
    _TABLE[op] = table


def available(op: str) -> dict[str, str | None]:
    """Report the backends of an op.

    Args:
        op (str): Name of the op, for example ``'selective_scan'``.

    Returns:
        dict[str, str | None]: Maps each backend name to None if the backend can run in
        this process, or to the reason why it cannot. The best backend comes first.

    Raises:
        ValueError: If the op does not exist.
    """
    return {name: _unavailable(op, name) for name in _names(op)}


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every op inside the ``with`` block on one backend.

    The setting applies to the whole process, not to one thread. A function compiled by
    ``torch.compile`` is compiled again when the setting changes.

    Args:
        name (str): A backend name, for example ``'reference'``.

    Raises:
        ValueError: If no op has a backend of this name.
    """
    if name not in _every_name():
        raise ValueError(
            f'backend {name!r} is unknown; accepted: {", ".join(_every_name())}'
        )
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


def resolve(
    op: str, tensors: Mapping[str, torch.Tensor | None], backend: str | None = None
) -> ModuleType:
    """Choose the backend module that runs an op on the given tensors.

    Args:
        op (str): Name of the op.
        tensors (Mapping[str, Tensor | None]): The tensor arguments by name.
        backend (str, optional): Backend requested by the caller.

    Returns:
        ModuleType: The backend module.

    Raises:
        ValueError: If the op or backend does not exist, or if the requested backend
            refuses the tensors.
        RuntimeError: If the requested backend is not available.
    """
    asked, source = backend, 'the argument backend='
    if asked is None:
        asked, source = _asked()
    if asked is None:
        return _best(op, tensors)

    if asked not in _names(op):
        raise ValueError(
            f'{op} has no backend {asked!r} (asked for by {source}); '
            f'accepted: {", ".join(_names(op))}'
        )
    reason = _unavailable(op, asked)
    if reason is not None:
        raise RuntimeError(
            f'backend {asked!r} of {op} (asked for by {source}) '
            f'is not available: {reason}'
        )
    module = _TABLE[op][asked]
    reason = module.refuses(tensors)
    if reason is not None:
        raise ValueError(
            f'backend {asked!r} of {op} (asked for by {source}) '
            f'cannot take these tensors: {reason}'
        )
    return module


def resolve_known(op: str, tensors: Mapping[str, torch.Tensor | None]) -> ModuleType:
    """Like :func:`resolve`, for an op that accompanies others and has fewer backends.

    A backend that is asked for and that this op does not have is left to the other ops.

    Raises:
        ValueError: If no op has the backend that is asked for; see also
            :func:`resolve`.
        RuntimeError: See :func:`resolve`.
    """
    asked, source = _asked()
    if asked in _names(op):
        return resolve(op, tensors)
    if asked is not None and not any(asked in table for table in _TABLE.values()):
        raise ValueError(
            f'backend {asked!r} (asked for by {source}) is unknown; accepted: '
            f'{", ".join(_every_name())}'
        )
    return _best(op, tensors)


def _asked() -> tuple[str | None, str]:
    """The backend that a block or the environment asks for, and which of them."""
    if _forced:
        return _forced[-1], 'use_backend()'
    source = f'the environment variable {ENV_VAR}'
    return os.environ.get(ENV_VAR) or None, source


def _every_name() -> list[str]:
    return sorted({backend for table in _TABLE.values() for backend in table})


def _best(op: str, tensors: Mapping[str, torch.Tensor | None]) -> ModuleType:
    refusals = []
    for name in _names(op):
        reason = _unavailable(op, name)
        if reason is None:
            module = _TABLE[op][name]
            reason = module.refuses(tensors)
            if reason is None:
                return module
        refusals.append(f'{name}: {reason}')
    raise RuntimeError(f'no backend of {op} takes these tensors; {"; ".join(refusals)}')


def _names(op: str) -> tuple[str, ...]:
    if op not in _TABLE:
        raise ValueError(f'op {op!r} is unknown; accepted: {", ".join(_TABLE)}')
    return tuple(_TABLE[op])


# torch.compile must not trace the loading of a library or the import of a package.
@torch.compiler.assume_constant_result
def _unavailable(op: str, name: str) -> str | None:
    return _reason(op, name)


@functools.cache
def _reason(op: str, name: str) -> str | None:
    module = _TABLE[op][name]
    reason = module.unavailable()
    if reason is not None and getattr(module, 'WARN_WHEN_UNAVAILABLE', False):
        warnings.warn(
            f'{op}: backend {name!r} is not available, slower ones are used '
            f'instead. {reason}',
            stacklevel=3,
        )
    return reason
