"""easy-VQA's configs from the command line, as its README has it."""

import json
import re

import pytest
from tiny_easy_vqa import write_easy_vqa

CONFIGS = 'configs/multimodal/easy_vqa'
ITERS = 2


@pytest.fixture(scope='module')
def workspace(repo_dir, tmp_path_factory):
    """A folder with the data where the configs look for them."""
    folder = tmp_path_factory.mktemp('vqa')
    (folder / 'configs').symlink_to(repo_dir / 'configs')
    data = folder / 'data' / 'easy_vqa'
    data.mkdir(parents=True)
    for split in ('train', 'test'):
        write_easy_vqa(data, split)
    return folder


@pytest.fixture(scope='module')
def train(workspace, run_tool):
    def run(name):
        options = [f'train_cfg.max_iters={ITERS}', 'train_dataloader.batch_size=2']
        if 'tower' not in name:
            options.append(f'train_cfg.val_interval={ITERS}')
        done = run_tool(
            'train.py', f'{CONFIGS}/{name}.py', '--cfg-options', *options, cwd=workspace
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope='module')
def teacher(workspace, train, run_tool):
    """The log of the teacher's training."""
    start = 'data/easy_vqa/start'
    done = run_tool('dataset_converters/word_vqa.py', 'easy_vqa', start, cwd=workspace)
    assert done.returncode == 0, done.stderr
    train('easy_vqa_tower')
    return train('easy_vqa_teacher')


@pytest.mark.parametrize(
    'name', ['easy_vqa_teacher', 'easy_vqa_pure_scratch', 'easy_vqa_hybrid_stage1']
)
def test_testing_repeats_the_validation(name, teacher, workspace, train, run_tool):
    said = teacher if name == 'easy_vqa_teacher' else train(name)
    folder = workspace / 'work_dirs' / name
    done = run_tool(
        'test.py',
        f'{CONFIGS}/{name}.py',
        folder / (folder / 'last_checkpoint').read_text(),
        '--out',
        'metrics.json',
        '--out-item',
        'metrics',
        cwd=workspace,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((workspace / 'metrics.json').read_text())
    # The teacher's own metrics are logged first, in one line with commas.
    shown = re.findall(r'answers/accuracy: ([\d.]+)\s', said)[-1]
    assert metrics['answers/accuracy'] == pytest.approx(float(shown), abs=1e-3)


def test_a_checkpoint_of_another_model(teacher, workspace, train, run_tool):
    train('easy_vqa_hybrid_stage1')
    checkpoint = f'work_dirs/easy_vqa_hybrid_stage1/iter_{ITERS}.pth'
    done = run_tool(
        'test.py', f'{CONFIGS}/easy_vqa_teacher.py', checkpoint, cwd=workspace
    )
    assert done.returncode != 0
    assert 'does not fit' in done.stderr and 'Nothing was loaded' in done.stderr
