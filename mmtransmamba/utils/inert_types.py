"""Safe replacements for the types that a checkpoint names besides its tensors.

``torch.load(weights_only=True)`` calls a type marked as safe with arbitrary arguments
from the file, and lets the file set the state of the result. Therefore, each of these
types checks its input: ``getattr`` and a ``HistoryBuffer``, which mmengine marks as
safe, are together enough to reach ``eval``.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pickle import UnpicklingError
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

# Numbers, booleans and text. Arrays of objects need more pickles; times do not occur in
# checkpoints.
_DTYPES = re.compile(r'b1|[iufc]\d{1,2}|[SU]\d{1,6}')
_STATISTICS = ('min', 'max', 'current', 'mean')


class Inert:
    """Replaces any class: a call creates an empty mapping and runs nothing.

    Items that the file adds to the mapping, and attributes of the object, can be read.
    """

    def __new__(cls, *_: Any) -> OrderedDict:
        return OrderedDict()


class _Dtype:
    """Replaces ``numpy.dtype``."""

    def __init__(self, code: str, *_: Any) -> None:
        if not (isinstance(code, str) and _DTYPES.fullmatch(code)):
            raise UnpicklingError(f'numpy.dtype({code!r}) is neither a number nor text')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        if order in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """Replaces ``numpy.ndarray``."""

    def __new__(cls, *_: Any) -> _Array:
        raise UnpicklingError('numpy.ndarray is called with a shape')

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, data = state
        sound = (
            type(dtype) is _Dtype
            and type(data) is bytes
            and all(type(n) is int and n >= 0 for n in shape)
        )
        if not sound or math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise UnpicklingError('numpy.ndarray has no such content')
        super().__setstate__((version, shape, dtype.dtype, bool(fortran), data))


def _new_array(kind: type, *_: Any) -> _Array:
    """Replaces numpy's ``_reconstruct``."""
    if kind is not _Array:
        raise UnpicklingError('numpy makes an array of something that is none')
    return np.ndarray.__new__(_Array, (0,), 'b')


def _new_scalar(dtype: _Dtype, data: bytes) -> np.generic:
    """Replaces numpy's ``scalar``."""
    if type(dtype) is not _Dtype or type(data) is not bytes:
        raise UnpicklingError('numpy makes a number of something that is none')
    if len(data) != dtype.dtype.itemsize:
        raise UnpicklingError('numpy makes a number of too many or too few bytes')
    return np.frombuffer(data, dtype.dtype)[0]


class _History:
    """Replaces mmengine's ``HistoryBuffer``, and becomes one when it is filled."""

    def __setstate__(self, state: Mapping) -> None:
        histories = [state.get(name) for name in ('_log_history', '_count_history')]
        length = state.get('max_length')
        if type(length) is not int or any(type(h) is not _Array for h in histories):
            raise UnpicklingError('HistoryBuffer has no such content')
        self.__class__ = HistoryBuffer
        self.__dict__.clear()
        self.max_length = length
        self._set_default_statistics()
        self._log_history, self._count_history = map(without_stand_ins, histories)


def _statistic(owner: type, name: str) -> Callable:
    """Replaces ``getattr``, which a saved ``HistoryBuffer`` uses."""
    if owner is not _History or name not in _STATISTICS:
        raise UnpicklingError(f'getattr is called for {name!r}')
    return getattr(HistoryBuffer, name)


STAND_INS: list[tuple[Callable, str]] = [
    (_History, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_statistic, 'builtins.getattr'),
    (slice, 'builtins.slice'),
    (_Dtype, 'numpy.dtype'),
    (_Array, 'numpy.ndarray'),
    (_new_array, 'numpy.core.multiarray._reconstruct'),
    (_new_array, 'numpy._core.multiarray._reconstruct'),
    (_new_scalar, 'numpy.core.multiarray.scalar'),
    (_new_scalar, 'numpy._core.multiarray.scalar'),
]
"""Names in a Runner's checkpoint, and the replacement called for each."""

SETTINGS = frozenset(
    (
        'argparse.Namespace',
        'types.SimpleNamespace',
        'collections.defaultdict',
        'builtins.dict',
        'builtins.list',
        'builtins.int',
        'builtins.float',
        'datetime.datetime',
        'datetime.timedelta',
        'pathlib.Path',
        'pathlib.PosixPath',
        'pathlib.WindowsPath',
        'pathlib._local.PosixPath',
        'yacs.config.CfgNode',
        'easydict.EasyDict',
        'mmengine.config.config.Config',
        'mmengine.config.config.ConfigDict',
        'mmcv.utils.config.Config',
        'mmcv.utils.config.ConfigDict',
    )
)
"""Types of the settings that training scripts save; each is read as :class:`Inert`."""


def without_stand_ins(content: Any) -> Any:
    """Replace the stand-ins for numpy's arrays, within mappings and lists too.

    Mappings and lists are changed in place.
    """
    return _replaced(content, set())


def _replaced(content: Any, seen: set[int]) -> Any:
    if type(content) is _Array:
        return content.view(np.ndarray)
    if type(content) is tuple:
        return tuple(_replaced(item, seen) for item in content)
    if id(content) in seen or not isinstance(content, (dict, list)):
        return content
    seen.add(id(content))
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        content[key] = _replaced(value, seen)
    return content
