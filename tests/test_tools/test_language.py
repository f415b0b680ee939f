"""A recipe of several stages from the command line, with its configs as they are."""

import json

import numpy as np
import pytest
from language_models import make_teacher
from markov_tokens import MarkovTokens

CONFIGS = 'configs/language/stories260k'
ITERS = 6


@pytest.fixture(scope='module')
def workspace(repo_dir, tmp_path_factory):
    """A folder with a teacher and tokens where the configs look for them."""
    folder = tmp_path_factory.mktemp('stages')
    (folder / 'configs').symlink_to(repo_dir / 'configs')
    data = folder / 'data' / 'stories260k'
    make_teacher(num_hidden_layers=5).save_pretrained(data / 'hf')
    for name, first in (('train', 0), ('val', 64)):
        dataset = MarkovTokens(num_samples=64, length=16, vocab_size=29, first=first)
        tokens = np.stack([sample['input_ids'].numpy() for sample in dataset])
        np.savez(data / f'samples_{name}.npz', tokens=tokens.astype(np.uint16))
    return folder


@pytest.fixture(scope='module')
def trained(workspace, run_tool):
    """The output of training the first two stages, one after the other."""
    outputs = []
    for stage in (1, 2):
        done = run_tool(
            'train.py',
            f'{CONFIGS}/mmmamba_stage{stage}.py',
            '--cfg-options',
            f'train_cfg.max_iters={ITERS}',
            f'train_cfg.val_interval={ITERS}',
            'default_hooks.logger.interval=1',
            cwd=workspace,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    return outputs


def test_stages_follow_each_other(trained, workspace):
    for stage, output in enumerate(trained, 1):
        assert f"LanguageDistiller, stage 'stage{stage}'" in output
        assert '% are trained' in output
        assert f'Iter(train) [{ITERS}/{ITERS}]' in output
        folder = workspace / 'work_dirs' / f'mmmamba_stage{stage}' / 'student'
        history = json.loads((folder / 'config.json').read_text())['transfer_history']
        assert history == ['init:mimic', 'stage1', 'stage2'][: stage + 1]


def test_testing_repeats_the_validation_beside_the_teacher(
    trained, workspace, run_tool
):
    done = run_tool(
        'test.py',
        f'{CONFIGS}/mmmamba_stage2.py',
        f'work_dirs/mmmamba_stage2/iter_{ITERS}.pth',
        '--out',
        'metrics.json',
        '--out-item',
        'metrics',
        cwd=workspace,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((workspace / 'metrics.json').read_text())
    validated = [line for line in trained[1].splitlines() if 'token/kl' in line][-1]
    for key in ('kl', 'ppl', 'agreement'):
        shown = float(validated.split(f'token/{key}:')[1].split()[0])
        assert metrics[f'token/{key}'] == pytest.approx(shown, abs=1e-3)


def test_a_stage_that_was_skipped_is_named(trained, workspace, run_tool):
    done = run_tool(
        'train.py',
        f'{CONFIGS}/mmmamba_stage3.py',
        '--cfg-options',
        'model.student.path=work_dirs/mmmamba_stage1/student',
        cwd=workspace,
    )
    assert done.returncode != 0
    assert "whose last step was 'stage2'" in done.stderr
    assert 'init:mimic > stage1' in done.stderr
