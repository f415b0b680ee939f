"""Tests of Triton kernels on a CPU, in Triton's interpreter.

``TRITON_INTERPRET`` changes what ``triton.jit`` makes, so that it has to be set before
Triton is imported. One process of its own therefore runs all cases of a module: plain
functions without arguments, in a dictionary ``CASES`` by the sentence that they check.
What is allocated there is full of NaN until it is written.
"""

import fcntl
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import torch

TIMEOUT = 600  # seconds


def why_not() -> str | None:
    """Why kernels cannot be interpreted here, or None."""
    if importlib.util.find_spec('triton') is None:
        return 'triton is not installed'
    from importlib.metadata import version

    triton, numpy = (
        tuple(int(part) for part in version(name).split('.')[:2])
        for name in ('triton', 'numpy')
    )
    if triton < (3, 6):
        return f'triton {version("triton")} is older than 3.6'
    if triton < (3, 7) and numpy >= (2, 4):
        return 'the interpreter of triton < 3.7 fails with numpy >= 2.4'
    return None


def outcomes(module: str, tmp_path_factory) -> dict[str, str | None]:
    """Run the cases of a module; its errors by case, None for what passed.

    The first of pytest's workers runs the cases, the others read what came out.

    Args:
        module (str): Name of a module beside this one.
        tmp_path_factory: The fixture of this name.
    """
    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        folder = folder.parent
    folder = folder / 'interpreted'
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / f'{module}.json'
    with (folder / f'{module}.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            support = Path(__file__).parent
            path = os.pathsep.join([str(support.parents[1]), str(support)])
            done = subprocess.run(
                [sys.executable, __file__, module, str(result)],
                env={
                    **os.environ,
                    'PYTHONPATH': path + os.pathsep + os.environ.get('PYTHONPATH', ''),
                    'TRITON_INTERPRET': '1',
                    'OMP_NUM_THREADS': '1',
                },
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
            assert result.exists(), done.stderr[-2000:]
    return json.loads(result.read_text())


def _poison() -> None:
    """Fill with NaN what is allocated without a value."""

    def filled(function):
        def allocate(*args, **kwargs):
            x = function(*args, **kwargs)
            real = x.device.type == 'cpu' and type(x) is torch.Tensor
            return x.fill_(torch.nan) if real and x.is_floating_point() else x

        return allocate

    torch.empty = filled(torch.empty)
    torch.empty_like = filled(torch.empty_like)
    torch.Tensor.new_empty = filled(torch.Tensor.new_empty)


def _patch_once() -> None:
    """Let a function that a kernel calls run as it is.

    Every such call would change ``triton.language`` once more in the same way, which
    takes much longer than most functions. Triton's own functions use other modules.
    """
    from triton.runtime.interpreter import InterpretedFunction

    call_triton = InterpretedFunction.__call__

    def call(self, *args, **kwargs):
        if self.fn.__module__.startswith('triton.'):
            return call_triton(self, *args, **kwargs)
        return self.rewrite()(*args, **kwargs)

    InterpretedFunction.__call__ = call


def _splat_masks() -> None:
    """Make a block of booleans from a boolean number.

    The interpreter gives it the type of the numbers that were compared. From Triton 3.9
    on, such a block is refused as a mask.
    """
    from triton.language import int1
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    splat = InterpreterBuilder.create_splat

    def create_splat(self, ret_ty, arg):
        if arg.data.dtype == bool:
            return TensorHandle(np.full(ret_ty.shape, arg.data), int1)
        return splat(self, ret_ty, arg)

    InterpreterBuilder.create_splat = create_splat


def _main(module: str, result: str) -> None:
    cases = importlib.import_module(module).CASES
    _poison()
    _patch_once()
    _splat_masks()
    found = {}
    for name, case in cases.items():
        torch.manual_seed(0)  # whatever ran before
        try:
            case()
            found[name] = None
        except Exception:
            found[name] = traceback.format_exc()[-3000:]
    written = Path(result)
    partial = written.with_suffix('.partial')
    partial.write_text(json.dumps(found))
    partial.rename(written)


if __name__ == '__main__':
    _main(*sys.argv[1:])
