"""``tools/train.py`` and ``tools/test.py`` from the command line."""

import json
import pickle
import shutil

from mmtransmamba.models.checkpoint import read_state_dict


def accuracy(line):
    return float(line.split('accuracy/top1:')[1].split()[0])


def last_accuracy(output):
    return accuracy(
        [line for line in output.split('\n') if 'accuracy/top1' in line][-1]
    )


def test_train_writes_a_checkpoint(trained):
    state = read_state_dict(trained / 'epoch_1.pth')
    assert state['head.layers.head.weight'].shape == (10, 32)
    assert (trained / 'tiny_vit.py').is_file()


def test_resume_continues_and_test_repeats_the_result(
    trained, run_tool, tiny_config, tmp_path
):
    work_dir = tmp_path / 'run'
    shutil.copytree(trained, work_dir)
    done = run_tool(
        'train.py',
        tiny_config,
        '--work-dir',
        work_dir,
        '--resume',
        '--cfg-options',
        'train_cfg.max_epochs=2',
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert 'resumed epoch: 1, iter: 12' in done.stdout
    assert 'Epoch(train) [2]' in done.stdout
    assert 'Epoch(train) [1]' not in done.stdout
    trained_accuracy = last_accuracy(done.stdout)

    assert 'resume = True' in (work_dir / 'tiny_vit.py').read_text()
    done = run_tool(
        'test.py',
        tiny_config,
        work_dir / 'epoch_2.pth',
        '--cfg-options',
        'resume=True',  # as the resumed run's own config says
        '--out',
        'metrics.json',
        '--out-item',
        'metrics',
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert abs(metrics['accuracy/top1'] - trained_accuracy) < 1e-3
    assert 'resumed' not in done.stdout
    # Without --work-dir the log goes where OpenMMLab users look for it, but not over
    # the config of a training.
    assert (tmp_path / 'work_dirs' / 'tiny_vit' / 'test' / 'tiny_vit.py').is_file()
    assert not list((tmp_path / 'work_dirs' / 'tiny_vit').glob('*.py'))


def test_dist_scripts_run_two_cpu_processes(run_tool, tiny_config, tmp_path, free_port):
    done = run_tool(
        'dist_train.sh',
        tiny_config,
        2,
        '--work-dir',
        'run',
        cwd=tmp_path,
        PORT=free_port,
        CUDA_VISIBLE_DEVICES='',
    )
    assert done.returncode == 0, done.stderr
    assert 'GPU number: 2' in done.stdout
    # 1,200 images in batches of 100 on two processes.
    assert '[1][6/6]' in done.stdout.replace(' ', '')
    trained_accuracy = last_accuracy(done.stdout)

    done = run_tool(
        'dist_test.sh',
        tiny_config,
        tmp_path / 'run' / 'epoch_1.pth',
        2,
        '--out',
        'predictions.pkl',
        cwd=tmp_path,
        PORT=free_port,
        CUDA_VISIBLE_DEVICES='',
    )
    assert done.returncode == 0, done.stderr
    assert abs(last_accuracy(done.stdout) - trained_accuracy) < 1e-3
    predictions = pickle.loads((tmp_path / 'predictions.pkl').read_bytes())
    assert len(predictions) == 597
    right = sum(int(p['pred_label'] == p['gt_label']) for p in predictions)
    assert abs(100 * right / 597 - trained_accuracy) < 1e-3


SRUN = """#!/usr/bin/env bash
# Stands for Slurm's srun: prints its options and starts two processes.
while [[ $1 == --* ]]; do echo "srun option $1"; shift; done
export SLURM_NTASKS=2 SLURM_NODELIST='node[1-2]'
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" & first=$!
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & second=$!
wait $first && wait $second
"""
SCONTROL = """#!/usr/bin/env bash
[ "$*" = 'show hostname node[1-2]' ] && printf '127.0.0.1\\nnode2\\n'
"""


def test_slurm_train(run_tool, tiny_config, tmp_path, free_port, monkeypatch):
    for name, text in (('srun', SRUN), ('scontrol', SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    done = run_tool(
        'slurm_train.sh',
        'cpu-partition',
        'digits',
        tiny_config,
        'run',
        '--no-validate',
        cwd=tmp_path,
        GPUS='2',
        GPUS_PER_NODE='0',
        SRUN_ARGS='--time=10 --quiet',
        MASTER_PORT=free_port,
        CUDA_VISIBLE_DEVICES='',
    )
    assert done.returncode == 0, done.stderr
    for option in (
        '--partition=cpu-partition',
        '--job-name=digits',
        '--ntasks=2',
        '--time=10',
        '--quiet',
    ):
        assert f'srun option {option}\n' in done.stdout
    assert '--gres' not in done.stdout
    assert 'GPU number: 2' in done.stdout
    assert 'accuracy/top1' not in done.stdout
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()
