"""Load the compiled kernels and call them on torch tensors."""

import ctypes
import functools
import os
from collections.abc import Mapping
from ctypes import c_char_p, c_double, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from ..arguments import in_float64

LEVEL_ENV_VAR = 'MMTRANSMAMBA_NATIVE_LEVEL'
REBUILD = 'Build it with: python -m mmtransmamba.ops.native.build'

_STATUS = {
    1: (ValueError, 'each row of order must be a permutation of the L tokens'),
    2: (ValueError, 'tap_index holds a step outside 0 ... L - 1'),
    3: (MemoryError, 'not enough memory for the scratch space of a kernel'),
}


class View(ctypes.Structure):
    """A float32 tensor of up to four strided dimensions, as in view.h."""

    _fields_ = [('data', c_void_p), ('stride', c_int64 * 4)]

    @classmethod
    def of(cls, tensor: Tensor | None) -> 'View':
        """Describe a tensor; None has null data."""
        if tensor is None:
            return cls()
        stride = (c_int64 * 4)(*tensor.stride()[:4])
        return cls(tensor.data_ptr(), stride)


class ScanArgs(ctypes.Structure):
    """The arguments of both kernels, field by field as in selective_scan.h."""

    _fields_ = [
        *((name, c_int64) for name in ('batch', 'directions', 'groups', 'channels')),
        *((name, c_int64) for name in ('states', 'length', 'taps', 'chunk')),
        *((name, c_int64) for name in ('segments', 'permute_params', 'softplus')),
        *((name, c_int64) for name in ('shared_u', 'shared_delta')),
        *((name, c_int64) for name in ('shared_b', 'shared_c')),
        *((name, c_void_p) for name in ('order', 'tap_index')),
        *((name, View) for name in ('u', 'delta', 'a', 'b', 'c', 'd', 'bias', 'z')),
        *((name, View) for name in ('y', 'tapped', 'last_state')),
        ('checkpoints', c_void_p),
        *((name, View) for name in ('grad_u', 'grad_delta', 'grad_a', 'grad_d')),
        *((name, View) for name in ('grad_bias', 'grad_z')),
        *((name, c_void_p) for name in ('grad_b', 'grad_c')),
    ]


class SsdArgs(ctypes.Structure):
    """The arguments of the SSD kernels, field by field as in ssd.h."""

    _fields_ = [
        *((name, c_int64) for name in ('batch', 'length', 'heads', 'width')),
        *((name, c_int64) for name in ('groups', 'states', 'chunk', 'segments')),
        *((name, View) for name in ('x', 'dt', 'a', 'd', 'b', 'c')),
        *((name, View) for name in ('initial_state', 'y', 'last_state')),
        ('checkpoints', c_void_p),
        *((name, View) for name in ('grad_x', 'grad_dt', 'grad_a', 'grad_d')),
        ('grad_initial', View),
        *((name, c_void_p) for name in ('grad_b', 'grad_c')),
    ]


class DeltaRuleArgs(ctypes.Structure):
    """The arguments of the delta rule's kernels, field by field as in delta_rule.h."""

    _fields_ = [
        *((name, c_int64) for name in ('batch', 'length', 'heads', 'groups')),
        *((name, c_int64) for name in ('keys', 'values', 'chunk', 'channel_gate')),
        ('scale', c_double),
        *((name, View) for name in ('q', 'k', 'v', 'gate', 'beta')),
        *((name, View) for name in ('initial_state', 'y', 'last_state')),
        ('checkpoints', c_void_p),
        *((name, View) for name in ('grad_q', 'grad_k', 'grad_v', 'grad_gate')),
        *((name, View) for name in ('grad_beta', 'grad_initial')),
    ]


class WkvArgs(ctypes.Structure):
    """The arguments of the RWKV v4 kernels, field by field as in wkv.h."""

    _fields_ = [
        *((name, c_int64) for name in ('batch', 'length', 'channels', 'separate')),
        *((name, View) for name in ('w', 'u', 'k', 'v', 'y')),
        *((name, View) for name in ('grad_w', 'grad_u', 'grad_k', 'grad_v')),
    ]


class Wkv6Args(ctypes.Structure):
    """The arguments of the RWKV v6 kernels, field by field as in wkv.h."""

    _fields_ = [
        *((name, c_int64) for name in ('batch', 'length', 'heads', 'width')),
        ('separate', c_int64),
        *((name, View) for name in ('r', 'k', 'v', 'decay', 'y')),
        *((name, View) for name in ('grad_r', 'grad_k', 'grad_v', 'grad_decay')),
    ]


class DepthwiseArgs(ctypes.Structure):
    """The arguments of the depthwise convolution, field by field as in depthwise.h."""

    _fields_ = [
        *((name, c_int64) for name in ('batch', 'height', 'width', 'channels')),
        *((name, c_int64) for name in ('kernels', 'tap_rows', 'tap_columns')),
        *((name, c_int64) for name in ('row', 'silu')),
        *((name, c_void_p) for name in ('column', 'flipped')),
        *((name, View) for name in ('x', 'taps', 'bias', 'y')),
        *((name, View) for name in ('grad_x', 'grad_taps', 'grad_bias')),
    ]


# The library's name of each op, and the arguments of its two kernels.
_OPS = {
    'selective_scan': ('scan', ScanArgs),
    'ssd': ('ssd', SsdArgs),
    'delta_rule': ('delta_rule', DeltaRuleArgs),
    'depthwise': ('depthwise', DepthwiseArgs),
    'wkv': ('wkv', WkvArgs),
    'wkv6': ('wkv6', Wkv6Args),
}


class Library:
    """The loaded shared library.

    Args:
        path (Path): The library file.

    Attributes:
        levels (dict[str, int]): Instruction set levels that this machine supports, the
            best one last.
        level (str): The level in use.

    Raises:
        OSError: If the library is missing, cannot be loaded or does not belong to
            these sources, or if the requested level is not supported.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise OSError(f'the compiled library {path.name} is missing')
        self._lib = lib = ctypes.CDLL(str(path))
        try:
            lib.mmt_level_name.restype = c_char_p
            lib.mmt_set_fork_join.argtypes = [c_void_p]
            stale = False
            for op, (short, args) in _OPS.items():
                size = getattr(lib, f'mmt_{short}_args_size')
                size.restype = c_int64
                stale |= size() != ctypes.sizeof(args)
                for direction in ('forward', 'backward'):
                    function = getattr(lib, f'mmt_{op}_{direction}')
                    function.argtypes = [ctypes.POINTER(args), c_int, c_int64]
        except AttributeError:
            stale = True
        if stale:
            raise OSError(f'{path.name} was built from other sources than these')
        self.levels = {
            lib.mmt_level_name(i).decode(): i
            for i in range(lib.mmt_level_count())
            if lib.mmt_level_supported(i)
        }
        self.level = os.environ.get(LEVEL_ENV_VAR) or list(self.levels)[-1]
        if self.level not in self.levels:
            raise OSError(
                f'{LEVEL_ENV_VAR}={self.level} is not supported here; accepted: '
                f'{", ".join(self.levels)}'
            )
        lib.mmt_set_fork_join(_openmp_of_torch())

    def run(self, op: str, direction: str, args: ctypes.Structure) -> None:
        """Run the ``'forward'`` or the ``'backward'`` kernel on torch's threads.

        Args:
            op (str): ``'selective_scan'``, ``'ssd'``, ``'delta_rule'``,
                ``'depthwise'``, ``'wkv'`` or ``'wkv6'``.
            direction (str): Which of its two kernels to run.
            args (Structure): Their arguments.

        Raises:
            ValueError: If ``order`` or ``tap_index`` contains an invalid index.
            MemoryError: If scratch memory cannot be allocated.
        """
        function = getattr(self._lib, f'mmt_{op}_{direction}')
        status = function(args, self.levels[self.level], torch.get_num_threads())
        if status:
            error, message = _STATUS[status]
            raise error(message)


@functools.cache
def load() -> Library:
    """The library in the folder of this file.

    Raises:
        OSError: See :class:`Library`.
    """
    # Imported here, so that `python -m` runs the build module as its first import.
    from .build import LIBRARY_NAME

    return Library(Path(__file__).parent / LIBRARY_NAME)


def rows(x: Tensor | None) -> Tensor | None:
    """A tensor with unit stride in the last dimension, copied only if needed.

    The ops themselves call this, because torch.compile may pass other strides than
    those they were traced with.
    """
    return x if x is None or x.stride(-1) == 1 else x.contiguous()


def pointer(x: Tensor | None) -> int | None:
    """Address of a contiguous tensor, None for an absent or empty one."""
    return None if x is None or x.numel() == 0 else x.data_ptr()


def _openmp_of_torch() -> int | None:
    """Address of ``GOMP_parallel`` in the OpenMP runtime that torch uses.

    GNU's runtime exports it, and so do LLVM's and Intel's compatible ones. The look-up
    goes through torch's own library, because another package may have loaded a second
    runtime into the process.
    """
    folder = Path(torch.__file__).parent / 'lib'
    for name in ('libtorch_cpu.so', 'libtorch_cpu.dylib'):
        if (folder / name).exists():
            try:
                torch_cpu = ctypes.CDLL(str(folder / name))
                return ctypes.cast(torch_cpu.GOMP_parallel, c_void_p).value
            except (OSError, AttributeError):
                return None
    return None


def unavailable() -> str | None:
    """Why the compiled library cannot be used, or None."""
    try:
        load()
    except OSError as error:
        return f'{error}. {REBUILD}'
    return None


def refuses_place_or_dtype(
    first: str, tensors: Mapping[str, Tensor | None]
) -> str | None:
    """Why the compiled kernels cannot take these tensors where they are, or None.

    Args:
        first: Name of the tensor whose device is reported.
        tensors: All tensors by name.
    """
    device = tensors[first].device
    if device.type != 'cpu':
        return f'it runs on the CPU, {first} is on {device}'
    name = in_float64(tensors)
    if name is not None:
        return f'it computes in float32, {name} is in {tensors[name].dtype}'
    return None
