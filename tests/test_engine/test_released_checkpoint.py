"""Checkpoints of ``load_from`` and ``resume`` must fit the model, from any writer."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmtransmamba.engine.hooks import ReleasedCheckpointHook
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.registry import MODELS
from mmtransmamba.utils.launch import accept_released_checkpoints


def classifier(width=8, classes=3, depth=1, kind='VisionTransformer'):
    if kind == 'VisionTransformer':
        arch = dict(num_layers=depth, num_heads=2, feedforward_channels=8)
        own = dict(arch=dict(arch, embed_dims=width), img_size=8, patch_size=4)
    else:
        own = dict(depth=18, base_channels=2)
    head = dict(type='LinearClsHead', num_classes=classes, in_channels=width)
    model = dict(type='ImageClassifier', backbone=dict(type=kind, **own), head=head)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(model)


def load(tmp_path, model, file, resume=False, hooks=None, **config):
    runner = Runner(
        model,
        str(tmp_path / 'run'),
        train_dataloader=DataLoader([0], 1),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[ReleasedCheckpointHook()] if hooks is None else hooks,
        load_from=str(file),
        resume=resume,
        log_level='ERROR',
        cfg=config,
        experiment_name=tmp_path.name,
    )
    runner.call_hook('before_run')
    runner.load_or_resume()
    return runner


def saved(tmp_path, model, wrapper='state_dict', change=lambda state: None):
    state = dict(model.state_dict())
    change(state)
    content = {wrapper: state, 'meta': dict(epoch=1, iter=1)}
    torch.save(content, tmp_path / 'file.pth')
    return tmp_path / 'file.pth'


def replaced(name, make):
    return lambda state: state.update({name: make(state[name])})


@pytest.mark.parametrize('resume', [False, True])
@pytest.mark.parametrize(
    'source, change, message',
    [
        (dict(width=16), None, 'of another shape'),
        (dict(classes=5), None, 'of another shape.*head.fc.weight'),
        (dict(depth=2), None, 'left over in the file: backbone.layers.1'),
        (dict(kind='ResNet'), None, 'does not fit ImageClassifier'),
        ({}, lambda s: s.pop('head.fc.bias'), '1 missing in the file: head.fc.bias'),
        ({}, replaced('head.fc.bias', lambda t: t.long()), 'head.fc.bias .file int64'),
        ({}, replaced('head.fc.bias', lambda t: t * torch.nan), 'head.fc.bias has NaN'),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, source, change, message, resume):
    file = saved(tmp_path, classifier(**source), change=change or (lambda state: None))
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path, classifier(), file, resume)


@pytest.mark.parametrize('wrapper', ['state_dict', 'model'])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_what_fits_is_loaded(tmp_path, wrapper, prefix):
    source, model = classifier(), classifier()

    def rename(state):
        for name in list(state):
            state[prefix + name] = state.pop(name)

    load(tmp_path, model, saved(tmp_path, source, wrapper, rename))
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_another_number_of_classes_is_loaded_when_the_config_says_so(tmp_path):
    source, model = classifier(classes=5), classifier()
    head = model.head.fc.weight.clone()
    load(tmp_path, model, saved(tmp_path, source), load_skip=['head.'])
    assert torch.equal(model.head.fc.weight, head)
    weight = 'backbone.ln1.weight'
    assert torch.equal(model.state_dict()[weight], source.state_dict()[weight])


@pytest.mark.parametrize(
    ('wrapper', 'classes'), [('state_dict', 3), ('model', 3), ('model', 5)]
)
def test_averages_begin_with_the_loaded_weights(tmp_path, wrapper, classes):
    source, model = classifier(classes=classes), classifier()
    file = saved(tmp_path, source, wrapper)
    cfg = Config(dict(load_from=str(file), custom_hooks=[dict(type='EMAHook')]))
    accept_released_checkpoints(cfg)
    skip = [] if classes == 3 else ['head.']
    runner = load(tmp_path, model, file, hooks=cfg.custom_hooks, load_skip=skip)
    average = next(h for h in runner.hooks if isinstance(h, EMAHook)).ema_model.module
    for name, tensor in model.state_dict().items():
        assert torch.equal(average.state_dict()[name], tensor), name
        if not (skip and name.startswith('head.')):
            assert torch.equal(source.state_dict()[name], tensor), name


def test_a_single_beginning_need_not_be_in_a_list(tmp_path):
    file = saved(tmp_path, classifier(classes=5))
    load(tmp_path, classifier(), file, load_skip='head.')
    for skip in (3, [3], [''], {'head.': 1}):
        with pytest.raises(CheckpointError, match='load_skip=.* must be a list of'):
            load(tmp_path, classifier(), file, load_skip=skip)


def test_skipping_permits_nothing_else(tmp_path):
    file = saved(tmp_path, classifier(classes=5, width=16))
    with pytest.raises(CheckpointError, match='of another shape.*backbone'):
        load(tmp_path, classifier(), file, load_skip=['head.'])
    file = saved(tmp_path, classifier())
    with pytest.raises(CheckpointError, match="load_skip: no tensor .* 'haed.'"):
        load(tmp_path, classifier(), file, load_skip=['haed.'])
