"""``tools/setup_env.sh`` on a stand-in for a virtual environment."""

import os
import shutil
import subprocess
import sys

import pytest

PYTHON = """#!/usr/bin/env bash
# Stands for the Python of a virtual environment: notes what pip is asked for.
case "$*" in
    '-m pip '*) echo "$*" >> "{log}"; [ ! -e "{fail}" ] ;;
    *backends*) echo 'Native CPU kernels: built' ;;
    *) exec "{python}" "$@" ;;
esac
"""


@pytest.fixture
def checkout(repo_dir, tmp_path):
    """A source tree with what the script looks at."""
    root = tmp_path / 'checkout'
    native = root / 'mmtransmamba' / 'ops' / 'native'
    (root / 'tools').mkdir(parents=True)
    (native / 'csrc').mkdir(parents=True)
    shutil.copy(repo_dir / 'tools' / 'setup_env.sh', root / 'tools')
    (root / 'requirements').mkdir()
    for name in (
        'setup.py',
        'pyproject.toml',
        'mmtransmamba/version.py',
        'requirements/runtime.txt',
        'requirements/constraints.txt',
        'mmtransmamba/ops/native/build.py',
        'mmtransmamba/ops/native/csrc/scan.cpp',
    ):
        (root / name).write_text('')
    return root


@pytest.fixture
def venv(tmp_path):
    """A folder with a ``bin/python`` that only notes the calls of pip."""
    python = tmp_path / 'venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text(
        PYTHON.format(
            log=tmp_path / 'pip.log', fail=tmp_path / 'fail', python=sys.executable
        )
    )
    python.chmod(0o755)
    python.with_name('pip').touch(0o755)
    return python.parent.parent


@pytest.fixture
def setup_env(checkout, venv, tmp_path):
    """Run the script; returns the finished process and what pip was asked for."""

    def run(*args, **env):
        log = tmp_path / 'pip.log'
        log.write_text('')
        environment = {**os.environ, 'MMTRANSMAMBA_VENV': str(venv), **env}
        done = subprocess.run(
            ['bash', str(checkout / 'tools' / 'setup_env.sh'), *args],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done, log.read_text().splitlines()

    return run


def editable(checkout, extra=''):
    tested = constrained(checkout)
    return f'-m pip install --no-compile {tested} --editable {checkout}{extra}'


def constrained(checkout):
    return f'--constraint {checkout}/requirements/constraints.txt'


def test_installs_once(setup_env, checkout):
    done, calls = setup_env()
    assert done.returncode == 0, done.stderr
    upgrade = f'-m pip install --quiet --upgrade {constrained(checkout)} pip'
    assert calls == [upgrade, editable(checkout)]
    assert 'Native CPU kernels: built' in done.stdout
    assert setup_env()[1] == []


def test_extra_is_installed_on_top_and_contains_the_rest(setup_env, checkout):
    setup_env()
    assert setup_env('tests')[1][1:] == [editable(checkout, '[tests]')]
    assert setup_env('tests')[1] == []
    assert setup_env()[1] == []


@pytest.mark.parametrize(
    'name',
    [
        'requirements/runtime.txt',
        'requirements/constraints.txt',
        'mmtransmamba/ops/native/csrc/scan.cpp',
    ],
)
def test_changed_sources_are_installed_again(setup_env, checkout, name):
    setup_env('tests')
    (checkout / name).write_text('changed')
    assert len(setup_env()[1]) == 2


def test_an_environment_whose_creation_was_interrupted_is_finished(
    setup_env, venv, tmp_path
):
    own = tmp_path / 'python3'
    # Creates pip as venv does, at its end.
    own.write_text(
        f'#!/bin/sh\n[ "$2" = venv ] && touch {venv}/bin/pip && chmod +x '
        f'{venv}/bin/pip\nexit 0\n'
    )
    own.chmod(0o755)
    (venv / 'bin' / 'pip').unlink()
    done, calls = setup_env(PYTHON=str(own))
    assert done.returncode == 0, done.stderr
    assert 'Creating the virtual environment' in done.stdout and len(calls) == 2
    assert (venv / 'bin' / 'pip').is_file()


def test_a_folder_that_was_there_is_kept_if_nothing_can_be_created(
    setup_env, venv, tmp_path
):
    own = tmp_path / 'python3'
    own.write_text('#!/bin/sh\n[ "$2" != venv ]\n')
    own.chmod(0o755)
    (venv / 'bin' / 'pip').unlink()
    done, calls = setup_env(PYTHON=str(own))
    assert done.returncode == 1 and 'cannot create virtual' in done.stderr
    assert (venv / 'bin' / 'python').is_file() and not calls


def test_failed_installation_is_tried_again(setup_env, tmp_path):
    (tmp_path / 'fail').touch()
    done, _ = setup_env()
    assert done.returncode != 0
    assert 'MMTRANSMAMBA_CONSTRAINTS=none' not in done.stderr  # pip itself failed
    (tmp_path / 'fail').unlink()
    done, calls = setup_env()
    assert done.returncode == 0
    assert len(calls) == 2


def test_other_constraints_are_installed_anew(setup_env, checkout, tmp_path):
    setup_env()
    _, calls = setup_env(MMTRANSMAMBA_CONSTRAINTS='none')
    assert calls[-1] == f'-m pip install --no-compile --editable {checkout}'
    own = tmp_path / 'own.txt'
    own.write_text('numpy==2.1')
    _, calls = setup_env(MMTRANSMAMBA_CONSTRAINTS=str(own))
    assert f'--constraint {own} ' in calls[-1]
    done, calls = setup_env(MMTRANSMAMBA_CONSTRAINTS=str(tmp_path / 'none.txt'))
    assert done.returncode == 1
    assert 'MMTRANSMAMBA_CONSTRAINTS names' in done.stderr
    assert calls == []


def test_active_environment(setup_env, venv, checkout):
    done, calls = setup_env(MMTRANSMAMBA_VENV='active', VIRTUAL_ENV=str(venv))
    assert done.returncode == 0, done.stderr
    # Its versions are its owner's.
    assert f'-m pip install --no-compile --editable {checkout}' in calls
    done, calls = setup_env(MMTRANSMAMBA_VENV='active', VIRTUAL_ENV='', CONDA_PREFIX='')
    assert done.returncode == 1
    assert 'no environment is active' in done.stderr
    assert calls == []


def test_no_suitable_python(setup_env, tmp_path):
    folder = tmp_path / 'old'
    folder.mkdir()
    for name in ('python', 'python3', *(f'python3.{n}' for n in range(10, 14))):
        (folder / name).write_text('#!/bin/sh\nexit 1\n')
        (folder / name).chmod(0o755)
    path = f'{folder}{os.pathsep}{os.environ["PATH"]}'
    new = str(tmp_path / 'new')
    done, _ = setup_env(MMTRANSMAMBA_VENV=new, PATH=path, PYTHON='')
    assert done.returncode == 1
    assert 'no Python >= 3.11 found' in done.stderr
    assert not os.path.exists(new)
