"""Misspelt keys of a config are refused; a config's own variables are not."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmtransmamba.utils.config_keys import check_keys, check_options, known_keys


def config(tmp_path, text):
    path = tmp_path / 'config.py'
    path.write_text(text)
    return Config.fromfile(path)


@pytest.mark.parametrize(
    'text, message',
    [
        ('optim_wraper = dict()', '"optim_wraper".*did you mean "optim_wrapper"'),
        ('load_form = "x.pth"', '"load_form".*did you mean "load_from"'),
        ('param_schedulers = []', 'did you mean "param_scheduler"'),
        ('custom_hook = []', 'did you mean "custom_hooks"'),
        ('traincfg = dict()', 'did you mean "train_cfg"'),
        ('load_skips = []', 'did you mean "load_skip"'),
        ('loglevel = "INFO"', 'did you mean "log_level"'),
        ('resume_from = "x.pth"', '"resume_from".*set load_from together with resume'),
        ('total_epochs = 3', 'set train_cfg.max_epochs'),
    ],
)
def test_a_misspelt_key_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        check_keys(config(tmp_path, text))


@pytest.mark.parametrize(
    'text',
    [
        'bgr_mean = [1]\nmodel = dict(mean=bgr_mean)',
        'optimizer = dict()\noptim_wrapper = dict(optimizer=optimizer)',
        'train_cfgs = dict()\ntrain_cfg = train_cfgs',
        'test_pipeline = []',  # a variable that a dumped config still has
        'data_root = "x"',
    ],
)
def test_variables_of_a_config_are_its_own(tmp_path, text):
    check_keys(config(tmp_path, text))


def test_a_base_file_may_use_the_variable(tmp_path):
    (tmp_path / 'base.py').write_text('train_cfgs = dict(a=1)')
    text = "_base_ = 'base.py'\ntrain_cfg = dict(a=_base_.train_cfgs.a)"
    check_keys(config(tmp_path, text))


def test_a_dumped_config_passes_with_all_its_variables(tmp_path, repo_dir):
    names = ('pipeline', 'train_transforms', 'optimizer', 'distiller', 'load', 'loss')
    for name in names:
        check_keys(config(tmp_path, f'{name} = dict()'))
    for file in sorted(repo_dir.glob('configs/*/*.py'))[::9]:
        Config.fromfile(file).dump(tmp_path / 'dumped.py')
        check_keys(Config.fromfile(tmp_path / 'dumped.py'))


def test_every_config_of_the_package_passes(repo_dir):
    files = sorted(repo_dir.glob('configs/*/*.py'))[::5]
    assert files
    for file in files:
        if Path(file).parent.name != '_base_':
            check_keys(Config.fromfile(file))


@pytest.mark.parametrize(
    'options, message',
    [
        ({'optim_wraper.type': 'X'}, 'reads "optim_wraper".*mean "optim_wrapper"'),
        ({'load_form': 'x'}, 'nobody reads "load_form"; did you mean "load_from"'),
        ({'zzz': 1}, 'nobody reads "zzz"$'),
        ({'model.terms.featur': None}, 'terms has no "featur"; did you mean "feature"'),
        ({'model.terms.logit': None}, 'did you mean "logits"'),
        ({'default_hooks.checkpiont': None}, 'did you mean "checkpoint"'),
    ],
)
def test_options_without_effect_are_refused(tmp_path, options, message):
    cfg = config(
        tmp_path,
        "model = dict(type='D', terms=dict(feature=dict(type='F'), logits=dict()))\n"
        'default_hooks = dict(checkpoint=dict())\nmine = 1',
    )
    with pytest.raises(ValueError, match=message):
        check_options(cfg, options)


def test_options_that_are_read_are_accepted(tmp_path):
    cfg = config(
        tmp_path,
        "mine = 1\nmodel = dict(type='D', terms=dict(a=dict()))",
    )
    check_options(
        cfg,
        {
            'mine': 2,
            'load_from': 'x.pth',
            'model.terms.a': None,
            'model.init_cfg': None,
            'train_dataloader.batch_size': 3,
            'val_cfg': None,
        },
    )


def test_what_runner_takes_is_known():
    assert {'model', 'work_dir', 'train_cfg', 'load_skip', 'tta_model'} <= known_keys()
