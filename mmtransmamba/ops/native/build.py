"""Compile the CPU kernels into one plain shared library.

Only the standard library is used, so that ``setup.py`` can load this file by path
before the package or torch is installed. To run it by hand:

    python -m mmtransmamba.ops.native.build
"""

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / 'csrc'
LIBRARY_NAME = 'libmmtransmamba_ops' + ('.dylib' if sys.platform == 'darwin' else '.so')

# -ffast-math is omitted on purpose: linking with it would switch the whole process
# to flush-to-zero. These two only state that nothing reads errno or traps.
_FLAGS = (
    '-std=c++17 -O3 -fPIC -fvisibility=hidden -pthread '
    '-fno-math-errno -fno-trapping-math'
).split()

# Sources that are compiled once per level.
_KERNELS = ('selective_scan', 'ssd', 'delta_rule', 'depthwise', 'wkv', 'wkv6')

# Instruction set levels: lanes of a float vector and compiler flags.
_LEVELS = {'baseline': (4, [])}
if platform.machine().lower() in ('x86_64', 'amd64'):
    _LEVELS['avx2'] = (8, ['-mavx2', '-mfma'])
    _LEVELS['avx512'] = (
        16,
        ['-mavx512f', '-mavx512dq', '-mavx512bw', '-mavx512vl', '-mfma'],
    )


def build(
    out_dir: str | os.PathLike, cxx: str | None = None, verbose: bool = False
) -> Path:
    """Compile and link the kernels.

    Args:
        out_dir (str | PathLike): Existing folder for the library.
        cxx (str, optional): C++17 compiler, possibly with arguments. Default: the
            environment variable ``CXX``, then the first of ``c++``, ``g++`` and
            ``clang++`` that exists.
        verbose (bool): Print the commands.

    Returns:
        Path: The library. An existing one is replaced atomically, so that processes
        that have loaded it keep their copy.

    Raises:
        RuntimeError: If there is no compiler, or if it fails; with its output.
    """
    compiler = _compiler(cxx)
    out_dir = Path(out_dir)
    with tempfile.TemporaryDirectory(dir=out_dir, prefix='.build-') as tmp:
        jobs = {f'{name}.o': [f'{name}.cpp'] for name in ('api', 'parallel')}
        for level, (lanes, flags) in _LEVELS.items():
            define = [f'-DMMT_LANES={lanes}', f'-DMMT_LEVEL={level}']
            for name in _KERNELS:
                jobs[f'{name}_{level}.o'] = [f'{name}.cpp', *define, *flags]

        def compile_one(job: tuple[str, list[str]]) -> str:
            target, (source, *flags) = job
            output = str(Path(tmp) / target)
            source = str(SOURCES / source)
            _run([*compiler, *_FLAGS, *flags, '-c', source, '-o', output], verbose)
            return output

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, jobs.items()))
        library = Path(tmp) / LIBRARY_NAME
        _run([*compiler, '-shared', '-pthread', *objects, '-o', str(library)], verbose)
        return library.replace(out_dir / LIBRARY_NAME)


def _compiler(cxx: str | None) -> list[str]:
    asked = cxx or os.environ.get('CXX')
    if asked:
        command = shlex.split(asked)
        if shutil.which(command[0]) is None:
            raise RuntimeError(f'the C++ compiler {asked!r} does not exist')
        return command
    for name in ('c++', 'g++', 'clang++'):
        if shutil.which(name):
            return [name]
    raise RuntimeError(
        'no C++ compiler found; install g++ or clang++, or set the environment '
        'variable CXX'
    )


def _run(command: list[str], verbose: bool) -> None:
    if verbose:
        print(shlex.join(command))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f'{shlex.join(command)} failed with exit status {done.returncode}:\n'
            f'{done.stdout}{done.stderr}'
        )


def main() -> None:
    """Build into the folder from which the package loads its library."""
    parser = argparse.ArgumentParser(description='Compile the CPU kernels.')
    parser.add_argument('--cxx', help='C++17 compiler')
    parser.add_argument('--verbose', action='store_true', help='print the commands')
    args = parser.parse_args()
    print(f'built {build(Path(__file__).parent, args.cxx, args.verbose)}')


if __name__ == '__main__':
    main()
