"""FSDP in two processes beside the same trainings in one."""

from __future__ import annotations

import inspect

import pytest
import sharded_ranks
import torch
from mmengine._strategy import DeepSpeedStrategy
from mmengine.config import Config
from processes import spawn_ranks
from sharded_ranks import MODELS, RANKS, STEPS, losses_of, runner_of
from torch import nn
from torch_release import cpu_shards
from transformers import AutoModelForCausalLM

from mmtransmamba.engine.sharding import FullyShardedModel
from mmtransmamba.engine.sharding.units import blocks_of
from mmtransmamba.registry import STRATEGIES
from mmtransmamba.utils import strategies
from mmtransmamba.utils.run_config import check_run
from mmtransmamba.utils.strategies import use_strategy

CLOSE = dict(rtol=1e-4, atol=1e-6)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder of all trainings, the losses of one process, and reports of two."""
    if cpu_shards.args[0]:
        pytest.skip(cpu_shards.kwargs['reason'])
    folder = tmp_path_factory.mktemp('sharded')
    losses = {}
    for kind in MODELS:
        runner = runner_of(kind, folder / f'{kind}-one', None)
        runner.train()
        losses[kind] = losses_of(runner)
    spawn_ranks(sharded_ranks.run, str(folder), nprocs=RANKS)
    return folder, losses, [torch.load(folder / f'{rank}.pth') for rank in range(RANKS)]


def last_of(folder, name):
    """The last checkpoint of a run."""
    number = (folder / name / 'last_checkpoint').read_text()
    return torch.load(folder / name / number, weights_only=False)


def own_weights(state):
    """Without the statistics of BatchNorm, which are those of a process's batches."""
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    return {key: value for key, value in state.items() if not key.endswith(statistics)}


def assert_same(actual, expected):
    """Weights and momenta are those of the other run."""
    weights = [own_weights(run['state_dict']) for run in (actual, expected)]
    torch.testing.assert_close(*weights, **CLOSE)
    states = [run['optimizer']['state'] for run in (actual, expected)]
    assert states[0].keys() == states[1].keys()
    assert states[0]
    torch.testing.assert_close(*states, **CLOSE)


@pytest.mark.parametrize('kind', MODELS)
def test_two_processes_learn_what_one_does(trained, kind):
    folder, losses, reports = trained
    assert len(losses[kind]) == STEPS
    assert losses[kind][-1] != losses[kind][0]
    for report in reports:
        assert report[kind] == pytest.approx(losses[kind], rel=1e-5)
    assert_same(last_of(folder, f'{kind}-two'), last_of(folder, f'{kind}-one'))


@pytest.mark.parametrize('kind', MODELS)
def test_each_process_holds_its_part(trained, kind):
    folder, _, reports = trained
    whole = last_of(folder, f'{kind}-two')['state_dict']
    parts = [report[f'{kind}, parameters'] for report in reports]
    total = sum(sum(part.values()) for part in parts)
    names = {name.removeprefix('student.') for name in parts[0]}
    names = {f'distiller.{n}' if n.startswith('terms.') else n for n in names}
    assert total == sum(whole[name].numel() for name in names)
    assert all(sum(part.values()) < 0.7 * total for part in parts)


@pytest.mark.parametrize('kind', ['classification', 'language'])
def test_a_sharded_teacher_teaches_the_same(trained, kind):
    _, losses, reports = trained
    assert reports[0][f'{kind}, teacher'] == pytest.approx(losses[kind], rel=1e-5)


@pytest.mark.parametrize('kind', ['classification', 'language'])
def test_scans_stay_float32_in_bfloat16(trained, kind):
    _, losses, reports = trained
    half = reports[0][f'{kind}, half']
    assert half != losses[kind]
    assert half == pytest.approx(losses[kind], rel=0.05)
    dtypes = reports[0][f'{kind}, dtypes']
    if kind == 'classification':  # autocast, whose parameters are float32
        assert set(dtypes.values()) == {torch.float32}
        return
    kept = {name.split('.')[-1] for name, d in dtypes.items() if d == torch.float32}
    assert kept == {'A_log', 'dt_bias'}
    assert dtypes['Linear.weight'] == torch.bfloat16


@pytest.mark.parametrize('start', ['one', 'two'])
def test_two_processes_go_on_from_a_checkpoint_of(trained, start):
    folder, _, _ = trained
    resumed = last_of(folder, f'language-{start}-resumed')
    assert_same(resumed, last_of(folder, 'language-one'))


def test_one_process_goes_on_from_a_checkpoint_of_two(trained):
    folder, _, _ = trained
    checkpoint = folder / 'language-two' / 'iter_2.pth'
    runner = runner_of(
        'language', folder / 'alone', None, steps=2, resume=checkpoint, start=2
    )
    runner.train()
    assert_same(last_of(folder, 'alone'), last_of(folder, 'language-one'))


def test_the_students_folder_is_whole(trained):
    folder, _, _ = trained
    student = AutoModelForCausalLM.from_pretrained(folder / 'language-two' / 'student')
    expected = last_of(folder, 'language-one')['state_dict']
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, expected[name], **CLOSE)
    assert (folder / 'vision_language-two' / 'student' / 'config.json').exists()


# --------------------------------------------------------------------------- settings


def config(**changes):
    model = dict(type='mmtransmamba.MultiDirectionDistiller')
    given = dict(
        model=model,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        val_dataloader=dict(sampler=dict(type='DefaultSampler', round_up=False)),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
    )
    return Config(given | changes)


def test_fsdp_sets_runner_wrapper_and_samplers():
    wrapper = dict(type='mmtransmamba.FullyShardedModel', teacher='shard')
    for given, expected in (
        ({}, dict(type='mmtransmamba.FullyShardedModel')),
        (dict(model_wrapper_cfg=wrapper), wrapper),
        (
            dict(model_wrapper_cfg=dict(type='mmtransmamba.PartwiseDataParallel')),
            dict(type='mmtransmamba.FullyShardedModel'),
        ),
    ):
        cfg = config(**given)
        use_strategy(cfg, 'fsdp', 'pytorch')
        assert cfg.runner_type == 'mmtransmamba.FullyShardedRunner'
        assert cfg.model_wrapper_cfg == expected
        # Each process must validate equally many batches.
        assert cfg.val_dataloader.sampler.round_up is True
        check_run(cfg)


def test_fsdp_needs_no_loss_scaling_in_bfloat16():
    optim = dict(
        type='AmpOptimWrapper', dtype='bfloat16', optimizer=dict(type='SGD', lr=0.1)
    )
    cfg = config(optim_wrapper=dict(optim, loss_scale='dynamic'))
    use_strategy(cfg, 'fsdp', 'slurm')
    assert cfg.optim_wrapper == dict(optim, type='mmtransmamba.AutocastOptimWrapper')


@pytest.mark.parametrize('given', [{}, dict(dtype='float16')])
def test_fsdp_scales_losses_in_float16(given):
    optim = dict(given, optimizer=dict(type='SGD', lr=0.1), loss_scale=512.0)
    cfg = config(optim_wrapper=dict(optim, type='AmpOptimWrapper'))
    use_strategy(cfg, 'fsdp', 'slurm')
    assert cfg.optim_wrapper == dict(optim, type='mmtransmamba.ScaledOptimWrapper')
    check_run(cfg)


def test_ddp_changes_nothing():
    cfg = config()
    use_strategy(cfg, 'ddp', 'none')
    assert cfg.to_dict() == config().to_dict()


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype='float64')),
            "AmpOptimWrapper of dtype='bfloat16' or 'float16'",
        ),
        (dict(optim_wrapper=dict(type='ApexOptimWrapper')), 'ApexOptimWrapper" does'),
        (dict(compile=True), 'compile does not work with FSDP'),
        (
            dict(optim_wrapper=dict(clip_grad=dict(max_norm=1.0, foreach=True))),
            r'optim_wrapper.clip_grad.foreach does not work with FSDP; accepted: max_n',
        ),
        (
            dict(custom_hooks=[dict(type='NumClassCheckHook'), dict(type='EMAHook')]),
            'custom_hooks.1: EMAHook does not work with FSDP',
        ),
        (
            dict(default_hooks=dict(speed=dict(type='mmtransmamba.CompileHook'))),
            'default_hooks.speed: CompileHook does not work',
        ),
    ],
)
def test_what_a_model_in_parts_does_not_support_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        use_strategy(config(**changes), 'fsdp', 'pytorch')


@pytest.mark.parametrize('name', ['fsdp', 'deepspeed'])
def test_one_process_is_refused(name):
    with pytest.raises(ValueError, match=f'--strategy {name} needs several processes'):
        use_strategy(config(), name, 'none')


@pytest.fixture
def deepspeed(monkeypatch):
    """As if the package were installed."""
    monkeypatch.setattr(strategies, 'find_spec', lambda name: name)
    monkeypatch.setattr(strategies.metadata, 'version', lambda name: '0.19.8')


def test_deepspeed_must_be_installed_and_recent(monkeypatch):
    monkeypatch.setattr(strategies, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match='needs the package deepspeed, which is not'):
        use_strategy(config(), 'deepspeed', 'pytorch')
    monkeypatch.setattr(strategies, 'find_spec', lambda name: name)
    monkeypatch.setattr(strategies.metadata, 'version', lambda name: '0.16.4')
    with pytest.raises(ValueError, match=r'deepspeed 0\.19 or later, not 0\.16\.4'):
        use_strategy(config(), 'deepspeed', 'pytorch')


def test_deepspeed_gets_what_mmengines_strategy_takes(deepspeed):
    optim = dict(
        type='AmpOptimWrapper',
        dtype='bfloat16',
        optimizer=dict(type='AdamW', lr=0.1),
        accumulative_counts=4,
        clip_grad=dict(max_norm=2.0),
        paramwise_cfg=dict(bypass_duplicate=True),
    )
    cfg = config(
        optim_wrapper=optim,
        strategy=dict(
            type='DeepSpeedStrategy',
            steps_per_print=50,
            zero_optimization=dict(reduce_bucket_size=9),
            config=dict(communication_data_type=1),
        ),
    )
    use_strategy(cfg, 'deepspeed', 'pytorch')
    assert cfg.runner_type == 'mmtransmamba.FullyShardedRunner'
    assert 'strategy' not in cfg
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.optim_wrapper.accumulative_counts == 4
    assert 'dtype' not in cfg.optim_wrapper
    assert cfg.val_dataloader.sampler.round_up is True
    assert cfg.model_wrapper_cfg.type == 'mmtransmamba.ZeroModel'
    given = dict(cfg.model_wrapper_cfg.strategy)
    kind = STRATEGIES.get(given.pop('type'))
    assert issubclass(kind, DeepSpeedStrategy)
    assert set(given) <= set(inspect.signature(DeepSpeedStrategy).parameters)
    zero = dict(stage=3, overlap_comm=True, reduce_bucket_size=9)
    assert given['zero_optimization'] == zero
    # DeepSpeed's own bf16 would store the parameters of scans in bfloat16.
    autocast = dict(enabled=True, dtype='bfloat16')
    assert given['config'] == dict(torch_autocast=autocast, communication_data_type=1)
    assert 'bf16' not in given
    assert given['gradient_accumulation_steps'] == 1
    assert (given['gradient_clipping'], given['steps_per_print']) == (2.0, 50)
    check_run(cfg)
    cfg = config()
    use_strategy(cfg, 'deepspeed', 'pytorch')
    assert 'config' not in cfg.model_wrapper_cfg.strategy


def hooks(*names):
    return dict(custom_hooks=[dict(type=f'mmtransmamba.{name}') for name in names])


def precision(**optim):
    return dict(optim_wrapper=dict(optim, optimizer=dict(type='SGD', lr=0.1)))


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            precision(type='AmpOptimWrapper'),
            "optim_wrapper.dtype='float16' does not work with DeepSpeed",
        ),
        (
            precision(type='AmpOptimWrapper', dtype='float16'),
            "accepted: 'bfloat16'",
        ),
        (precision(type='ApexOptimWrapper'), 'type="ApexOptimWrapper" does not work'),
        (
            hooks('TermDecayHook', 'CompileHook'),
            'custom_hooks.1: CompileHook does not work with DeepSpeed; leave it out$',
        ),
        (
            precision(type='OptimWrapper', clip_grad=dict(type='value', clip_value=1)),
            r'accepted: dict\(max_norm=…\)',
        ),
        (
            precision(clip_grad=dict(max_norm=1.0, norm_type=1)),
            'clips the norm of order 2',
        ),
        (
            precision(clip_grad=dict(max_norm=1.0, error_if_nonfinite=True)),
            'clips the norm of order 2',
        ),
        (
            dict(strategy=dict(zero_optimization=dict(stage=2))),
            r'strategy\.zero_optimization\.stage=2 must be 3',
        ),
        (
            dict(strategy=dict(gradient_accumulation_steps=4)),
            r'set optim_wrapper\.accumulative_counts',
        ),
        (dict(strategy=dict(config='ds.json')), "config='ds.json' must be a dict"),
        (dict(compile=True), 'compile does not work with DeepSpeed'),
    ],
)
def test_what_deepspeed_does_not_support_is_refused(deepspeed, changes, message):
    with pytest.raises(ValueError, match=message):
        use_strategy(config(**changes), 'deepspeed', 'pytorch')


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(teacher='elsewhere'), "teacher='elsewhere' must be one of 'replicate'"),
        (dict(dtype='float16'), "dtype='float16' must be one of None, 'bfloat16'"),
        (dict(dtype='bfloat16'), "dtype='bfloat16' is for models of language"),
        (dict(reshard_after_forward=2), 'reshard_after_forward=2 must be one of True'),
    ],
)
def test_a_wrong_value_is_named(options, message):
    with pytest.raises(ValueError, match=f'model_wrapper_cfg.{message}'):
        FullyShardedModel(nn.Linear(1, 1), **options)


def test_a_teacher_apart_is_not_sharded():
    model = nn.Linear(1, 1)
    model.teacher_device = torch.device('cpu')
    with pytest.raises(ValueError, match=r'leave out model\.teacher_device'):
        FullyShardedModel(model, teacher='shard')


def test_blocks_are_the_outermost_lists_of_own_modules():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(2, 2)])

    model = nn.Module()
    model.inner = nn.Module()
    model.inner.layers = nn.ModuleList([Block(), Block()])
    model.projections = nn.ModuleList([nn.Linear(2, 2)])
    model.terms = nn.ModuleDict(dict(one=Block()))
    assert blocks_of(model) == list(model.inner.layers)
