"""A run of a study in a process of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path


def call_logged(
    script: str, arguments: list[str], key: str, args: argparse.Namespace
) -> None:
    """Do a run with a script of this folder; its output goes to a log file.

    Args:
        script: Name of the script.
        arguments: Its arguments.
        key: Name of the run and of its log.
        args: The study's ``work_dir``, and the ``threads`` of a run.

    Raises:
        SystemExit: It failed.
    """
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    log = args.work_dir / f'{key}.log'
    with log.open('a') as output:
        code = subprocess.call(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {'OMP_NUM_THREADS': str(args.threads)},
        )
    if code:
        raise SystemExit(f'{script}: error: the run {key} failed, see {log}')
