"""The WSD schedule: its shape, and that every run ends at its end."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from mmtransmamba.engine.schedulers import WSD
from mmtransmamba.registry import PARAM_SCHEDULERS

LR, LOW = 2.0, 0.5
SAMPLES = 7  # iterations of an epoch


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=LR)


def rates(steps: int, **kwargs) -> list[float]:
    """The rate used in each iteration."""
    optim = optimizer()
    scheduler = WSD(optim, by_epoch=False, **dict(dict(end=steps), **kwargs))
    used = []
    for _ in range(steps):
        used.append(optim.param_groups[0]['lr'])
        optim.step()
        scheduler.step()
    return used


@pytest.mark.parametrize(
    'form, half', [('linear', 0.5), ('cosine', 0.5), ('sqrt', 1 - 0.5**0.5)]
)
def test_three_phases(form, half):
    used = rates(100, warmup=0.1, decay=0.2, form=form, eta_min=LOW)
    assert used[:10] == pytest.approx([LR * (i + 1) / 10 for i in range(10)])
    assert used[10:80] == [LR] * 70
    assert used[89] == pytest.approx(LOW + half * (LR - LOW))
    assert used[79] > used[80] > used[98] > used[99] == pytest.approx(LOW)


def test_lengths_in_iterations():
    assert rates(20, warmup=4, decay=6) == rates(20, warmup=0.2, decay=0.3)


def test_no_warmup_begins_at_the_full_rate():
    assert rates(10, warmup=0.0, decay=0.1) == [LR] * 9 + [0.0]


@pytest.mark.parametrize('steps', [2, 3, 5, 9])
def test_short_runs_reach_the_minimum(steps):
    assert rates(steps, eta_min=LOW)[-1] == pytest.approx(LOW)


def test_rates_of_groups_keep_their_ratio():
    params = [nn.Parameter(torch.zeros(())) for _ in range(2)]
    optim = torch.optim.SGD(
        [dict(params=[params[0]], lr=1.0), dict(params=[params[1]], lr=3.0)]
    )
    scheduler = WSD(optim, warmup=4, decay=1, end=10, by_epoch=False)
    for _ in range(2):
        optim.step()
        scheduler.step()
    assert [group['lr'] for group in optim.param_groups] == [0.75, 2.25]


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(form='exp'), "form='exp' must be one of linear, cosine, sqrt"),
        (dict(warmup=1.5), 'warmup=1.5 must be a part of the training as a float'),
        (dict(decay=-1), 'decay=-1 must be'),
        (dict(warmup=6, decay=5), r'6 \+ 5 iterations, more than the 10'),
        (dict(by_epoch=True), 'set by_epoch=False, or convert_to_iter_based=True'),
        (dict(end=10**9), 'the length of the schedule is unknown'),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        WSD(optimizer(), **dict(dict(end=10, by_epoch=False), **kwargs))


# ------------------------------------------------------------------ in a Runner


class Line(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.layer(torch.stack(inputs)).square().mean())


class RecordRates(Hook):
    """Notes the rate of each iteration, and interrupts the training before one."""

    def __init__(self, stop: int | None) -> None:
        self.stop = stop
        self.used = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.stop:
            raise KeyboardInterrupt
        self.used.append(runner.optim_wrapper.get_lr()['lr'][0])


def run(
    folder, train_cfg, scheduler, resume=False, stop=None, accumulate=1
) -> list[float]:
    record = RecordRates(stop)
    by_epoch = train_cfg.get('by_epoch', False)
    data = [dict(inputs=torch.tensor([float(i)])) for i in range(SAMPLES)]
    saves = dict(
        type='CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 10
    )
    runner = Runner(
        Line(),
        str(folder),
        train_dataloader=dict(
            batch_size=1,
            dataset=data,
            # At the end of another sampler's data mmengine sleeps for two seconds.
            sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler'),
        ),
        train_cfg=dict(train_cfg),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=LR), accumulative_counts=accumulate
        ),
        param_scheduler=dict(scheduler, type='mmtransmamba.WSD', eta_min=LOW),
        custom_hooks=[record],
        default_hooks=dict(checkpoint=saves if stop else None),
        resume=resume,
        log_level='ERROR',
        experiment_name=f'{folder.name}-{resume}-{stop}',
    )
    try:
        runner.train()
    except KeyboardInterrupt:
        assert runner.iter == stop
    return record.used


EPOCHS = dict(by_epoch=True, max_epochs=3)
ITERS = dict(type='IterBasedTrainLoop', max_iters=30)


@pytest.mark.parametrize(
    'train_cfg, scheduler, length',
    [
        (EPOCHS, dict(convert_to_iter_based=True), 21),
        (EPOCHS, dict(by_epoch=False), 21),
        (EPOCHS, dict(convert_to_iter_based=True, warmup=1, decay=1), 21),
        (ITERS, dict(by_epoch=False), 30),
    ],
    ids=['epochs', 'iterations of epochs', 'warm-up in epochs', 'iterations'],
)
def test_the_last_iteration_has_the_minimum(train_cfg, scheduler, length, tmp_path):
    used = run(tmp_path, train_cfg, scheduler)
    phase = SAMPLES if 'warmup' in scheduler else round(0.1 * length)
    assert len(used) == length
    assert used[-1] == pytest.approx(LOW)
    assert used.count(LR) == length - 2 * phase + 1


@pytest.mark.parametrize('accumulate', [2, 4])
@pytest.mark.parametrize('train_cfg', [EPOCHS, ITERS], ids=['epochs', 'iterations'])
def test_accumulation_does_not_stretch_the_schedule(train_cfg, accumulate, tmp_path):
    """Iterations count, not the steps of the optimizer."""
    used = run(tmp_path, train_cfg, dict(by_epoch=False), accumulate=accumulate)
    assert used == pytest.approx(rates(len(used), eta_min=LOW))
    assert used[-1] == pytest.approx(LOW)


@pytest.mark.parametrize('accumulate', [1, 4])
@pytest.mark.parametrize('train_cfg', [EPOCHS, ITERS], ids=['epochs', 'iterations'])
def test_resumed_as_if_never_interrupted(train_cfg, accumulate, tmp_path):
    kwargs = dict(scheduler=dict(by_epoch=False), accumulate=accumulate)
    whole = run(tmp_path / 'whole', train_cfg, **kwargs)
    # mmengine resumes a loop over epochs at the beginning of one.
    saved, stop = (14, 16) if train_cfg is EPOCHS else (20, 20)
    first = run(tmp_path / 'parts', train_cfg, stop=stop, **kwargs)
    second = run(tmp_path / 'parts', train_cfg, resume=True, **kwargs)
    assert first[:saved] + second == pytest.approx(whole)


@pytest.mark.parametrize('length', [24, 40])
def test_resumed_with_another_length_ends_at_the_minimum(tmp_path, length):
    first = run(tmp_path, ITERS, dict(by_epoch=False), stop=20)
    train_cfg = dict(ITERS, max_iters=length)
    second = run(tmp_path, train_cfg, dict(by_epoch=False), resume=True)
    assert first == pytest.approx(rates(30, eta_min=LOW)[:20])
    assert second == pytest.approx(rates(length, eta_min=LOW)[20:])
    assert second[-1] == pytest.approx(LOW)


@pytest.mark.parametrize(
    'train_cfg, scheduler',
    [
        (ITERS, dict(by_epoch=False, end=300)),
        (ITERS, dict(convert_to_iter_based=True)),
        (EPOCHS, dict(convert_to_iter_based=True, end=5)),
    ],
    ids=['too long', 'epochs in a loop over iterations', 'too many epochs'],
)
def test_a_schedule_of_another_length_is_refused(train_cfg, scheduler, tmp_path):
    with pytest.raises(ValueError, match='Leave end out of the config'):
        run(tmp_path, train_cfg, scheduler)


def test_registered_beside_mmengines():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        scheduler = PARAM_SCHEDULERS.build(
            dict(type='mmtransmamba.WSD', by_epoch=False, end=10, optimizer=optimizer())
        )
    assert isinstance(scheduler, WSD)


@pytest.mark.parametrize('ratio', [0.0, 0.25, 1.0])
def test_each_group_ends_at_a_part_of_its_own_rate(ratio):
    groups = [dict(params=[nn.Parameter(torch.zeros(()))], lr=lr) for lr in (2, 0.1)]
    optim = torch.optim.SGD(groups)
    scheduler = WSD(
        optim, by_epoch=False, end=10, warmup=0.0, decay=0.3, eta_min_ratio=ratio
    )
    used = []
    for _ in range(10):
        used.append([group['lr'] for group in optim.param_groups])
        optim.step()
        scheduler.step()
    assert used[0] == [2, 0.1]
    assert used[-1] == pytest.approx([2 * ratio, 0.1 * ratio])
    for first, second in used:
        assert first == pytest.approx(20 * second)
    with pytest.raises(ValueError, match='either eta_min or eta_min_ratio'):
        WSD(optim, by_epoch=False, end=10, eta_min=0.1, eta_min_ratio=ratio)
