"""Experiments run once, go on after an interruption, and refuse to be confused."""

import json
import time

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.runner import runner

from mmtransmamba.apis import run_experiment
from mmtransmamba.apis.loading import load
from mmtransmamba.engine import run
from mmtransmamba.registry import METRICS
from mmtransmamba.visualization import read_scalars

OPTIONS = {
    'model.backbone.arch': dict(embed_dims=16, depth=1),
    'model.head.in_channels': 16,
    'train_cfg.max_epochs': 2,
    'train_cfg.val_interval': 1,
    'param_scheduler': [],
}


@pytest.fixture
def scratch(repo_dir):
    return repo_dir / 'configs' / 'quickstart' / 'digits_scratch.py'


def test_finished_run_is_not_trained_again(scratch, tmp_path):
    first = run_experiment(scratch, tmp_path / 'run', OPTIONS)
    assert [epoch for epoch, _ in first.scalars.accuracy] == [1, 2]
    assert first.parameters > 0
    checkpoints = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*.pth')}
    second = run_experiment(scratch, tmp_path / 'run', OPTIONS)
    assert second.seconds == first.seconds
    assert second.scalars.best == first.scalars.best
    assert checkpoints == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*.pth')}

    other = OPTIONS | {'train_cfg.max_epochs': 3}
    with pytest.raises(ValueError, match='run of another config'):
        run_experiment(scratch, tmp_path / 'run', other)


@pytest.mark.parametrize(
    ('options', 'test', 'message'),
    [
        ({'test_cfg': None}, True, 'has no test_cfg, which test=True needs'),
        (
            {'test_dataloader': None, 'test_evaluator': None},
            *(True, 'has no test_dataloader, test_evaluator, which'),
        ),
        ({'visualizer.vis_backends': []}, False, 'has no LocalVisBackend'),
        (
            {'visualizer.vis_backends': [dict(type='TensorboardVisBackend')]},
            *(False, 'has no LocalVisBackend'),
        ),
    ],
)
def test_results_that_could_not_be_read_are_refused_before_the_training(
    scratch, tmp_path, options, test, message
):
    with pytest.raises(ValueError, match=message):
        run_experiment(scratch, tmp_path / 'run', OPTIONS | options, test=test)
    assert not (tmp_path / 'run').exists()


def test_runs_with_visualizers_of_one_name_keep_their_own_curves(scratch, tmp_path):
    options = OPTIONS | {'visualizer.name': 'the_same'}
    runs = [run_experiment(scratch, tmp_path / name, options) for name in 'ab']
    for run_ in runs:
        assert [epoch for epoch, _ in run_.scalars.accuracy] == [1, 2]


def test_a_run_that_finished_without_a_test_is_tested_later(scratch, tmp_path):
    folder, outside = tmp_path / 'run', tmp_path / 'out'
    options = OPTIONS | {'default_hooks.checkpoint.out_dir': str(outside)}
    trained = run_experiment(scratch, folder, options)
    assert trained.tested is None and not list(folder.glob('*.pth'))
    tested = run_experiment(scratch, folder, options, test=True)
    # The quickstart tests on the images of the validation.
    assert tested.tested['accuracy/top1'] == pytest.approx(trained.scalars.final)
    assert run_experiment(scratch, folder, options).tested == tested.tested
    assert read_scalars(folder).accuracy == trained.scalars.accuracy
    assert not load(folder).training

    (folder / 'last_checkpoint').unlink()
    record = json.loads((folder / 'result.json').read_text())
    (folder / 'result.json').write_text(json.dumps(record | dict(tested=None)))
    for path in outside.rglob('*.pth'):
        path.unlink()
    with pytest.raises(ValueError, match='finished run without a checkpoint'):
        run_experiment(scratch, folder, options, test=True)


def test_interrupted_run_goes_on(scratch, tmp_path):
    options = OPTIONS | {'default_hooks.checkpoint.interval': 1}
    whole = run_experiment(scratch, tmp_path / 'run', options)
    assert whole.seconds > 0
    # as if it had been killed in the second epoch, while it wrote its records
    (tmp_path / 'run' / 'result.json').unlink()
    (tmp_path / 'run' / 'epoch_2.pth').write_bytes(b'cut off')
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    scalars.write_text(scalars.read_text() + '{"loss": 1.')

    result = run_experiment(scratch, tmp_path / 'run', options)
    assert [epoch for epoch, _ in result.scalars.accuracy] == [1, 2]
    assert result.seconds is None
    last = torch.load(tmp_path / 'run' / 'epoch_2.pth', weights_only=False)
    assert last['meta']['epoch'] == 2


class Clock:
    """Time that passes only while somebody waits for it."""

    def __init__(self):
        self.now = 1.7e9

    def time(self):
        return self.now

    def strftime(self, form, when=None):
        return time.strftime(form, when or time.localtime(self.now))

    def sleep(self, seconds):
        self.now += seconds

    def __getattr__(self, name):
        return getattr(time, name)


@pytest.mark.parametrize('names', [('one', 'two'), ('one', 'one')])
def test_runs_of_one_second_have_their_own_records(
    scratch, tmp_path, monkeypatch, names
):
    clock = Clock()
    monkeypatch.setattr(runner, 'time', clock)
    monkeypatch.setattr(run, 'time', clock)
    options = OPTIONS | {'train_cfg.max_epochs': 1}
    for name in names:
        (tmp_path / name / 'result.json').unlink(missing_ok=True)
        result = run_experiment(scratch, tmp_path / name, options)
        assert [epoch for epoch, _ in result.scalars.accuracy] == [1]
    assert len(list(tmp_path.glob('*/*/vis_data'))) == 2


@METRICS.register_module()
class NumbersOfEveryKind(BaseMetric):
    """As the metrics of mmseg and mmdet return them."""

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(
            numpy=np.float32(0.5),
            array=np.arange(2),
            tensor=torch.tensor(0.25),
            plain=1,
            text='0.1 0.2',
        )


def test_results_of_any_metric_are_kept(scratch, tmp_path):
    options = OPTIONS | {
        'train_cfg.max_epochs': 1,
        'test_evaluator': dict(_delete_=True, type='mmtransmamba.NumbersOfEveryKind'),
    }
    first = run_experiment(scratch, tmp_path, options, test=True)
    assert first.tested == dict(
        numpy=0.5, array=[0, 1], tensor=0.25, plain=1, text='0.1 0.2'
    )
    assert run_experiment(scratch, tmp_path, options, test=True).tested == first.tested
