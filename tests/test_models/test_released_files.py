"""Files as their authors release them: what they hold besides, and how it is loaded."""

import argparse

import pytest
import torch
from mmengine.runner import load_checkpoint

import mmtransmamba.models  # noqa: F401
from mmtransmamba.models import (
    CheckpointError,
    PlainMamba,
    VMamba,
    load_pretrained,
    read_state_dict,
)
from mmtransmamba.registry import MODELS

ARCH = PlainMamba.ARCHS['T'] | dict(embed_dims=16, depth=1)


def backbone(img_size=32, **kwargs):
    torch.manual_seed(0)
    model = PlainMamba(ARCH, img_size=img_size, patch_size=8, **kwargs)
    model.init_weights()
    return model


class Settings(dict):
    """Stands for the settings class of a training script, which is not installed."""


Settings.__module__ = 'yacs.config'


def test_arguments_of_a_training_script_do_no_harm(tmp_path, monkeypatch):
    import sys
    import types

    module = types.ModuleType('yacs.config')
    module.Settings = Settings
    monkeypatch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
    monkeypatch.setitem(sys.modules, 'yacs.config', module)
    state = backbone().state_dict()
    content = dict(
        model=state,
        args=argparse.Namespace(lr=1e-3, name='run'),
        config=Settings(depth=2, inner=Settings(width=3)),
    )
    torch.save(content, tmp_path / 'file.pth')
    monkeypatch.undo()  # they cannot be imported where the file is read
    loaded = read_state_dict(tmp_path / 'file.pth')
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_nothing_in_a_file_is_executed(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / 'written'), 'w'))

    torch.save(dict(model=backbone().state_dict(), extra=Malicious()), tmp_path / 'x')
    try:
        read_state_dict(tmp_path / 'x')
    except CheckpointError:
        pass
    assert not (tmp_path / 'written').exists()


def test_flat_file_with_an_epoch(tmp_path):
    torch.save(backbone().state_dict() | dict(epoch=3), tmp_path / 'flat.pth')
    assert set(read_state_dict(tmp_path / 'flat.pth')) == set(backbone().state_dict())


def test_averaged_model_of_a_runner(tmp_path):
    state = {f'module.{k}': v + 1 for k, v in backbone().state_dict().items()}
    content = dict(
        state_dict=backbone().state_dict(),
        ema_state_dict=state | dict(steps=torch.tensor(4)),
    )
    torch.save(content, tmp_path / 'epoch.pth')
    model = backbone()
    load_pretrained(model, tmp_path / 'epoch.pth', container='ema_state_dict')
    assert torch.equal(model.ln1.weight, backbone().ln1.weight + 1)


@pytest.mark.parametrize('prefix', ['module.', 'module.backbone.', 'backbone.'])
def test_prefixes_of_a_mapping(prefix):
    state = {prefix + k: v + 1 for k, v in backbone().state_dict().items()}
    model = backbone()
    load_pretrained(model, state)
    assert torch.equal(model.ln1.weight, backbone().ln1.weight + 1)


def test_heads_of_dense_models_are_left_over():
    state = {f'backbone.{k}': v for k, v in backbone().state_dict().items()}
    state['decode_head.conv_seg.weight'] = torch.zeros(2, 2)
    report = load_pretrained(backbone(), state)
    assert report.left_over == ['decode_head.conv_seg.weight']


def test_dense_checkpoint_with_more_norms_than_are_used():
    arch = VMamba.ARCHS['vanilla_tiny'] | dict(depths=(1, 1, 1, 1), embed_dims=4)
    dense = VMamba(arch, out_indices=(0, 1, 2, 3), with_outnorms=True)
    report = load_pretrained(
        VMamba(arch, out_indices=(2, 3), with_outnorms=True), dense.state_dict()
    )
    assert {name.split('.')[0] for name in report.left_over} == {'outnorm0', 'outnorm1'}


def test_grid_of_a_position_embedding_that_is_not_square():
    wide, square = backbone((16, 64)), backbone((32, 32))  # 2x8 and 4x4 tokens
    unsaid = backbone((32, 32))
    load_pretrained(unsaid, wide.state_dict())
    assert torch.equal(unsaid.pos_embed, wide.pos_embed)  # taken for a 4x4 one
    report = load_pretrained(square, wide.state_dict(), pos_embed_grid=(2, 8))
    assert not torch.equal(square.pos_embed, wide.pos_embed)
    assert 'pos_embed' in report.converted
    load_pretrained(backbone((48, 48)), wide.state_dict(), pos_embed_grid=(2, 8))
    with pytest.raises(CheckpointError, match='the state dict does not fit.* 3x8'):
        load_pretrained(square, wide.state_dict(), pos_embed_grid=(3, 8))


class TestInitCfg:
    def test_list_with_a_file(self, tmp_path):
        state = {k: v + 1 for k, v in backbone().state_dict().items()}
        torch.save(dict(model=state), tmp_path / 'file.pth')
        other = dict(type='Constant', layer='LayerNorm', val=7.0)
        pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'file.pth'))
        model = backbone(init_cfg=[other, pretrained])
        assert torch.equal(model.ln1.weight, state['ln1.weight'])
        assert (backbone(init_cfg=[other]).ln1.weight == 7).all()
        assert model.init_cfg == [other, pretrained]

    def test_without_a_file(self):
        with pytest.raises(ValueError, match='needs checkpoint, and accepts prefix'):
            backbone(init_cfg=dict(type='Pretrained'))


def test_mmengine_loads_an_official_container_into_a_classifier(tmp_path):
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmtransmamba.PlainMamba', arch=ARCH, img_size=32, patch_size=8
            ),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=16),
        )
    )
    state = {k: v + 1 for k, v in backbone().state_dict().items()}
    torch.save(dict(model=state, epoch=1), tmp_path / 'file.pth')
    load_checkpoint(model, str(tmp_path / 'file.pth'), map_location='cpu')
    assert torch.equal(model.backbone.ln1.weight, state['ln1.weight'])
