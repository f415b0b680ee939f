import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run_script


@pytest.fixture(scope='session')
def tiny_config() -> Path:
    """A config that trains within a second."""
    return Path(__file__).with_name('tiny_vit.py')


@pytest.fixture(scope='session')
def run_tool(repo_dir):
    """Run a script of ``tools`` and return the finished process.

    With ``fresh`` the process imports everything itself, as a user's does.
    """

    def run(name, *args, cwd, fresh=False, **env):
        script = repo_dir / 'tools' / name
        if script.suffix == '.py' and not fresh:
            return run_script(script, *args, cwd=cwd, **env)
        shell = ['bash'] if script.suffix == '.sh' else [sys.executable]
        # As on a clean checkout: neither PYTHONPATH nor the folder helps.
        environment = {**os.environ, 'PYTHON': sys.executable, **env}
        environment.pop('PYTHONPATH', None)
        return subprocess.run(
            [*shell, str(script), *map(str, args)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def free_port() -> str:
    """A TCP port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope='session')
def trained(run_tool, tiny_config, tmp_path_factory) -> Path:
    """The work dir of one epoch of training with ``tools/train.py``."""
    folder = tmp_path_factory.mktemp('trained')
    done = run_tool(
        'train.py', tiny_config, '--work-dir', 'run', cwd=folder, fresh=True
    )
    assert done.returncode == 0, done.stderr
    # Nothing but the log: a newcomer does not meet warnings of other packages.
    assert done.stderr == ''
    assert done.stdout.split('\n')[0].endswith('- mmengine - INFO - ')
    return folder / 'run'
