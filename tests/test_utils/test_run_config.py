"""Mistakes in a run's config, found before the Runner is built."""

import pytest
from mmengine.config import Config

from mmtransmamba.utils import launch
from mmtransmamba.utils.run_config import check_run


def config(**changes):
    good = dict(
        model=dict(type='A'),
        train_cfg=dict(by_epoch=True, max_epochs=40, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=[
            dict(type='LinearLR', end=5),
            dict(type='CosineAnnealingLR', begin=5),
        ],
    )
    return Config(good | changes)


def test_a_good_config_passes():
    check_run(config())
    check_run(config(param_scheduler=None, optim_wrapper=None))
    check_run(config(train_cfg=dict(by_epoch=True, max_epochs=6)))
    # An end of its own is the config's business, and tests need no training.
    check_run(config(param_scheduler=dict(type='LinearLR', end=60)))
    check_run(Config(dict(model=dict(type='A'))))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(model=None), 'the config has no model: it needs model='),
        (dict(model='A'), "the config has no model: .*, got 'A'"),
        (dict(model=dict(backbone=1)), 'it needs model=dict'),
        (
            dict(train_cfg=dict(max_epochs=5)),
            r'max_epochs=5 is too short for param_scheduler\.1 \(CosineAnnealingLR\), '
            r'which begins at epoch 5, .* --cfg-options param_scheduler\.1\.begin=1 '
            r'param_scheduler\.0\.end=1',
        ),
        (
            dict(
                train_cfg=dict(max_iters=9),
                param_scheduler=dict(type='PolyLR', begin=9, by_epoch=False),
            ),
            r'max_iters=9 is too short for param_scheduler\.0 .* at iteration 9',
        ),
        (
            dict(param_scheduler=[dict(type='LinearLR', begin=5, end=5)]),
            r'param_scheduler\.0 \(LinearLR\) ends at 5, but begins at 5',
        ),
        (dict(train_cfg=dict(max_epochs=9, val_interval=0)), 'val_interval=0 must be'),
        (dict(train_cfg=dict(max_iters=2.5)), r'train_cfg\.max_iters=2\.5 must be'),
        (dict(train_cfg=dict(max_epochs=None)), r'train_cfg\.max_epochs=None must be'),
        (dict(train_cfg=dict(max_iters=True)), r'train_cfg\.max_iters=True must be'),
        (dict(randomness=dict(seed='abc')), "randomness.seed='abc' must be a whole"),
        (dict(randomness=dict(seed=-1)), 'randomness.seed=-1 must be a whole number'),
        (dict(randomness=dict(seed=1.5)), 'randomness.seed=1.5 must be a whole'),
        (dict(log_level=float('inf')), 'log_level=inf must be one of DEBUG, INFO'),
        (dict(log_level='INF'), "log_level='INF' must be one of DEBUG, INFO"),
        (
            dict(optim_wrapper=dict(paramwise_cfg=dict(norm_decay_mul=0))),
            'optim_wrapper.paramwise_cfg.norm_decay_mul is read by nobody; did you '
            'mean "norm_decay_mult"',
        ),
        (
            dict(env_cfg=dict(cudnn_benchmrk=True)),
            'env_cfg.cudnn_benchmrk is read by nobody; did you mean "cudnn_benchmark"',
        ),
        (dict(env_cfg=dict(mp_cfg=dict(start='fork'))), 'env_cfg.mp_cfg.start is read'),
        (
            dict(env_cfg=dict(dist_cfg=dict(backnd='gloo'))),
            'env_cfg.dist_cfg.backnd is read by nobody; did you mean "backend"',
        ),
        (
            dict(auto_scale_lr=dict(bas_batch_size=3)),
            'auto_scale_lr.bas_batch_size is read by nobody; did you mean "base_batch',
        ),
        (dict(test_cfg=dict(fp61=True)), 'test_cfg.fp61 is read by nobody; .*"fp16"'),
        (dict(val_cfg=dict(fp61=True)), 'val_cfg.fp61 is read by nobody; .*"fp16"'),
        (dict(train_cfg=dict(max_epochs='3')), "max_epochs='3' must be a whole number"),
        (
            dict(optim_wrapper=dict(optimizer=dict(type='AdmaW'))),
            'type="AdmaW" is not an optimizer that is known; did you mean "AdamW"',
        ),
        (
            dict(optim_wrapper=dict(optimizer=dict(type='x.y'))),
            '"x.y" is not an optimizer',
        ),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        check_run(config(**changes))


@pytest.mark.parametrize(
    'name', ['digits_scratch', 'digits_transfer', 'retrieval_transfer']
)
def test_the_warm_up_of_every_quickstart_is_named(name, repo_dir):
    cfg = launch.read_config(repo_dir / f'configs/quickstart/{name}.py')
    check_run(cfg)
    length = 'max_epochs' if cfg.train_cfg.get('max_epochs') else 'max_iters'
    cfg.train_cfg[length] = 1
    with pytest.raises(ValueError, match=rf'train_cfg\.{length}=1 is too short'):
        check_run(cfg)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'model = dict(', "line 1: '\\(' was never closed"),
        (b'x = undefined\n', "NameError: name 'undefined' is not defined"),
        ('model = "é"\n'.encode('latin-1'), 'it is not text in UTF-8'),
        (b'_base_ = 3\n', 'TypeError: '),
    ],
)
def test_a_file_that_is_no_config(tmp_path, content, message):
    path = tmp_path / 'broken.py'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        launch.read_config(path)
    assert str(error.value).startswith(f'cannot read the config "{path}": ')


def test_a_folder_and_another_kind_of_file(tmp_path):
    with pytest.raises(ValueError, match='is a folder; give a file in it'):
        launch.read_config(tmp_path)
    (tmp_path / 'config.txt').write_text('')
    with pytest.raises(ValueError, match='Only py/yml/yaml/json'):
        launch.read_config(tmp_path / 'config.txt')


def test_keys_that_others_read_are_accepted():
    own = dict(constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor')
    check_run(config(optim_wrapper=own | dict(paramwise_cfg=dict(layer_decay_rate=1))))
    check_run(config(test_cfg=dict(type='MyLoop', anything=1), val_cfg=dict(fp16=True)))
    check_run(
        config(
            env_cfg=dict(
                cudnn_benchmark=True,
                mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
                dist_cfg=dict(backend='nccl', timeout=1800, init_backend='deepspeed'),
                resource_limit=4096,
            ),
            randomness=dict(seed=0, diff_rank_seed=True, deterministic=False),
            log_level='ERROR',
        )
    )


def test_a_number_names_no_entry_of_what_is_no_list():
    single = config(param_scheduler=dict(type='LinearLR', end=5))
    with pytest.raises(
        ValueError, match='param_scheduler.0.end: param_scheduler is one entry, no list'
    ):
        launch.override(single, {'param_scheduler.0.end': 1})
    assert launch.override(single, {'param_scheduler.end': 1}).param_scheduler.end == 1
    named = config(terms={'0': dict(weight=1)})
    assert launch.override(named, {'terms.0.weight': 2}).terms['0'].weight == 2


@pytest.mark.parametrize(
    'option', ['param_scheduler.7.end', 'param_scheduler.x', 'model.type.name']
)
def test_an_option_that_names_no_place(option):
    with pytest.raises(
        ValueError, match=f'--cfg-options {option}=1: the config has no'
    ):
        launch.override(config(), {option: 1})


SHARDED = dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel'))
ENGINE = dict(
    strategy=dict(type='DeepSpeedStrategy', gradient_accumulation_steps=4),
    optim_wrapper=dict(
        type='DeepSpeedOptimWrapper', optimizer=dict(type='AdamW', lr=0.1)
    ),
)
ACCUMULATES = dict(
    optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1), accumulative_counts=3)
)


@pytest.mark.parametrize(
    ('kind', 'unit'),
    [
        ('CausalLM', 'tokens'),
        ('LanguageDistiller', 'tokens'),
        ('MultiDirectionDistiller', 'images'),
    ],
)
@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        (SHARDED | ACCUMULATES, 'MMFullyShardedDataParallel .* of 3'),
        (
            dict(strategy=dict(type='mmengine.FSDPStrategy')) | ACCUMULATES,
            'FSDPStrategy .* of 3',
        ),
        (ENGINE, 'DeepSpeedStrategy .* of 4'),
    ],
)
def test_means_over_steps_that_the_model_does_not_see_are_refused(
    kind, unit, changes, named
):
    kind = f'mmtransmamba.{kind}'
    with pytest.raises(ValueError, match=named.replace('.*', f'.* {unit}')):
        check_run(config(model=dict(type=kind), **changes))
    check_run(config(model=dict(type=kind, average='batches'), **changes))


def test_means_over_single_batches_or_without_tokens_pass():
    model = dict(type='mmtransmamba.CausalLM')
    check_run(config(model=model, **SHARDED))
    for wrapper in ('MMDistributedDataParallel', 'mmtransmamba.PartwiseDataParallel'):
        check_run(
            config(model=model, model_wrapper_cfg=dict(type=wrapper), **ACCUMULATES)
        )
    check_run(config(model=dict(type='mmpretrain.ImageClassifier'), **ENGINE))
