"""New processes that find the packages imported.

Importing torch, transformers and mmpretrain takes a process several seconds, which is
most of what a small test of a script takes. Here one server imports them, once for each
worker of pytest, and every process is a fork of it: it has its own arguments, folder,
environment and output as any other, but none of what the test has done.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import torch.multiprocessing

# mmtransmamba first: it bridges the imports that follow. One that fails is left out.
PRELOAD = [
    'mmtransmamba',
    'mmengine.runner',
    'mmpretrain.models',
    'mmpretrain.datasets',
    'mmpretrain.evaluation',
    'transformers.models.clip.modeling_clip',
    'transformers.models.llama.modeling_llama',
    'transformers.models.llava.modeling_llava',
    'mmtransmamba.apis',
    'mmtransmamba.datasets',
    'mmtransmamba.models',
    'mmtransmamba.transfer',
]
TIMEOUT = 300  # seconds


def _context():
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(PRELOAD)
    return context


def spawn_ranks(function, *args, nprocs: int = 2) -> None:
    """``function(rank, *args)`` in ``nprocs`` processes; an error of one is raised."""
    _context()
    torch.multiprocessing.start_processes(
        function, args, nprocs, start_method='forkserver'
    )


def run_script(script, *args, cwd=None, **env: str) -> subprocess.CompletedProcess:
    """The result of ``python script *args``, with ``env`` added to the environment."""
    with tempfile.TemporaryDirectory() as folder:
        written = [Path(folder) / name for name in ('stdout', 'stderr')]
        command = [str(script), *map(str, args)]
        environment = {**os.environ, **env}
        options = (command, str(cwd or Path.cwd()), environment, *map(str, written))
        process = _context().Process(target=_run, args=options)
        process.start()
        process.join(TIMEOUT)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(command, TIMEOUT)
        out, err = (path.read_text() for path in written)
    return subprocess.CompletedProcess(command, process.exitcode, out, err)


def _run(command: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    for name, descriptor in ((out, 1), (err, 2)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name='__main__')
