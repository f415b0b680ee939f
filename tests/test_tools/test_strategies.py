"""Training in parts by the scripts, and what becomes of it when a process dies."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
import torch
from torch_release import cpu_shards

SECONDS = 60
"""Within which a job must end after one of its processes died."""


def wait_for(condition, seconds=400):
    """The condition's result, as soon as there is one."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise TimeoutError(condition.__name__)


def children_of(pid):
    """Ids of a process's children."""
    found = []
    for task in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{task}/children') as file:
            found += map(int, file.read().split())
    return found


@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='needs Linux')
@cpu_shards
def test_a_dead_process_ends_the_job_which_one_process_resumes(
    repo_dir, run_tool, tiny_config, tmp_path, free_port
):
    run = tmp_path / 'run'
    environment = os.environ | dict(
        PYTHON=sys.executable, PORT=str(free_port), CUDA_VISIBLE_DEVICES=''
    )
    script = repo_dir / 'tools' / 'dist_train.sh'
    options = ['--work-dir', run, '--strategy', 'fsdp']
    options += ['--cfg-options', 'train_cfg.max_epochs=10000']
    with open(tmp_path / 'log', 'w') as log:
        job = subprocess.Popen(
            ['bash', script, tiny_config, '2', *map(str, options)],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:

            def checkpoint():
                assert job.poll() is None, (tmp_path / 'log').read_text()
                return (run / 'epoch_1.pth').exists()

            wait_for(checkpoint)
            os.kill(children_of(job.pid)[-1], signal.SIGKILL)
            begin = time.monotonic()
            assert job.wait(SECONDS) != 0
            assert time.monotonic() - begin < SECONDS
        finally:
            if job.poll() is None:
                for process in [*children_of(job.pid), job.pid]:
                    os.kill(process, signal.SIGKILL)
    assert 'Signal 9' in (tmp_path / 'log').read_text()

    last = torch.load(run / (run / 'last_checkpoint').read_text(), weights_only=False)
    epochs = last['meta']['epoch'] + 1
    done = run_tool(
        'train.py',
        tiny_config,
        *('--work-dir', run, '--resume'),
        *('--cfg-options', f'train_cfg.max_epochs={epochs}'),
        cwd=tmp_path,
        CUDA_VISIBLE_DEVICES='',
    )
    assert done.returncode == 0, done.stderr
    assert 'is of a run in 2 processes, and it goes on in 1' in done.stdout
    assert (run / f'epoch_{epochs}.pth').exists()


@pytest.mark.parametrize('name', ['fsdp', 'deepspeed'])
def test_one_process_is_told_to_be_several(run_tool, tiny_config, tmp_path, name):
    done = run_tool('train.py', tiny_config, '--strategy', name, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f'train.py: error: --strategy {name} needs several processes; start them with '
        f'tools/dist_train.sh CONFIG GPUS --strategy {name}'
    )


@pytest.mark.skipif(find_spec('deepspeed') is None, reason='deepspeed is not installed')
def test_two_processes_of_deepspeed_learn_what_two_of_ddp_do(
    run_tool, tiny_config, tmp_path, free_port
):
    learned = []
    for name in ('ddp', 'deepspeed'):
        done = run_tool(
            'dist_train.sh',
            *(tiny_config, '2', '--strategy', name, '--work-dir', tmp_path / name),
            cwd=tmp_path,
            CUDA_VISIBLE_DEVICES='',
            DS_ACCELERATOR='cpu',
            PORT=free_port,
        )
        assert done.returncode == 0, done.stderr
        figures = re.findall(r'(?:loss|accuracy/top1): ([\d.]+)', done.stdout)
        learned.append([float(figure) for figure in figures])
    assert len(learned[0]) == 2
    assert learned[1] == pytest.approx(learned[0], rel=1e-3)
    done = run_tool(
        'train.py',
        tiny_config,
        *('--work-dir', tmp_path / 'deepspeed', '--resume'),
        *('--cfg-options', 'train_cfg.max_epochs=2'),
        cwd=tmp_path,
        CUDA_VISIBLE_DEVICES='',
    )
    assert done.returncode == 0, done.stderr
    assert 'is of a run in 2 processes, and it goes on in 1' in done.stdout
