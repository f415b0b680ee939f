"""Backbones that are compiled with their weights as constants."""

import copy
import shutil
import warnings

import pytest
import torch
from mmpretrain.models import ImageClassifier
from tiny_backbones import images_for, make_backbone
from torch import nn

from mmtransmamba import compile_for_inference, export
from mmtransmamba.apis.export import ExportError

pytestmark = pytest.mark.skipif(
    not (shutil.which('g++') or shutil.which('c++')),
    reason='torch.compile needs a C++ compiler on the CPU',
)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize('name', ['plain_mamba', 'vim', 'vmamba_noz', 'vrwkv_v4'])
def test_the_outputs_stay(name):
    model, images = make_backbone(name), images_for(name)
    with torch.no_grad():
        expected = model(images)
    keys = list(model.state_dict())
    assert compile_for_inference(model.train()) is model
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*lru_cache.*')
        found = model(images)
    assert not found[-1].requires_grad and not model.training
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == keys


def test_weights_are_constants_of_the_graph():
    model, graphs = make_backbone('plain_mamba'), []
    compile_for_inference(model, backend=lambda g, x: graphs.append(x) or g.forward)
    model(images_for('plain_mamba'))
    (inputs,) = graphs
    assert [x.shape for x in inputs if isinstance(x, torch.Tensor)] == [(2, 3, 32, 32)]


def test_a_classifier_keeps_its_head_and_refuses_what_its_weights_are_for(tmp_path):
    model = ImageClassifier(
        backbone=dict(
            type='mmtransmamba.Vim',
            arch=dict(embed_dims=16, depth=1),
            img_size=32,
            patch_size=8,
        ),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
    ).eval()
    images = images_for('vim')
    with torch.no_grad():
        expected = model(images)
        compile_for_inference(model, backend='eager')
        torch.testing.assert_close(model(images), expected)
    with pytest.raises(RuntimeError, match='Vim was compiled for inference'):
        model.load_state_dict(model.state_dict())
    with pytest.raises(ExportError, match='Vim was compiled for inference.*export it'):
        export(model, tmp_path / 'vim.pt', 'torchscript', (3, 32, 32))
    copied = copy.deepcopy(model).train()
    with pytest.raises(RuntimeError, match='Vim was compiled for inference.*train'):
        copied(images)
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize('model', [nn.Linear(2, 2), ImageClassifier])
def test_other_models_are_refused(model):
    if model is ImageClassifier:
        model = ImageClassifier(dict(type='mmpretrain.LeNet5'))
    kind = 'Linear' if isinstance(model, nn.Linear) else 'LeNet5'
    with pytest.raises(TypeError, match=f'a vision backbone of this package.*{kind}'):
        compile_for_inference(model)
