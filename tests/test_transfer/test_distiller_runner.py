"""The whole transfer inside a Runner: both stages, checkpoints, EMA, resuming."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmtransmamba.models import load_pretrained, read_state_dict
from mmtransmamba.registry import MODELS


@pytest.fixture
def config(repo_dir, tmp_path) -> Config:
    cfg = Config.fromfile(repo_dir / 'configs' / 'quickstart' / 'digits_transfer.py')
    cfg.merge_from_dict(
        {
            'model.student.backbone.arch': dict(embed_dims=16, depth=2),
            'model.student.head.in_channels': 16,
            'model.teacher.checkpoint': 'random',
            'train_dataloader.batch_size': 30,
            'train_dataloader.dataset.proportion': 0.05,
            'train_cfg.max_epochs': 2,
            'train_cfg.val_interval': 2,
            'param_scheduler': [],
            'log_level': 'WARNING',
            'work_dir': str(tmp_path / 'run'),
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.logger.interval': 1,
        }
    )
    return cfg


def train(cfg: Config) -> Runner:
    runner = Runner.from_cfg(cfg.copy())
    runner.train()
    return runner


def test_checkpoint_is_a_plain_student(config, tmp_path):
    train(config)
    state = read_state_dict(tmp_path / 'run' / 'epoch_2.pth')
    assert any(key.startswith('distiller.') for key in state)
    assert not any('teacher' in key for key in state)
    student = MODELS.build(config.model.student)
    report = load_pretrained(student, tmp_path / 'run' / 'epoch_2.pth')
    assert not report.missing
    assert all(key.startswith('distiller.') for key in report.left_over)


def test_resume_goes_on_without_inheriting_again(config, tmp_path):
    report = tmp_path / 'run' / 'subclone_report.json'
    train(config)
    assert report.exists()
    report.unlink()

    config.resume = True
    config.train_cfg.max_epochs = 3
    resumed = train(config)
    assert resumed.epoch == 3
    assert not report.exists()


def test_both_stages_leave_their_records(config, tmp_path):
    train(config)
    report = json.loads((tmp_path / 'run' / 'subclone_report.json').read_text())
    assert 'backbone.layers.0.norm.weight' in json.dumps(report)
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    names = {name for line in scalars.open() for name in json.loads(line)}
    assert {'loss_task', 'loss_logits', 'loss_direction', 'accuracy/top1'} <= names


def test_weight_average_is_saved_under_the_students_names(config, tmp_path):
    config.custom_hooks.append(dict(type='EMAHook', momentum=0.1))
    runner = train(config)
    content = torch.load(tmp_path / 'run' / 'epoch_2.pth', weights_only=False)
    average = content['state_dict']
    assert set(average) == set(runner.model.state_dict())
    assert not torch.equal(
        average['head.fc.weight'], runner.model.student.head.fc.weight
    )
    config.resume = True
    config.train_cfg.max_epochs = 3
    assert train(config).epoch == 3
