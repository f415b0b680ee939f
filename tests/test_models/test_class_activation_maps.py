"""mmpretrain's ``vis_cam.py`` finds its way in the backbones."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import mmpretrain
import pytest
import torch
from tiny_backbones import images_for, make_backbone
from torch import nn


@pytest.fixture
def vis_cam(monkeypatch):
    """The tool as a module; the package that draws is not needed here."""
    names = ('pytorch_grad_cam', 'activations_and_gradients', 'utils', 'image')
    fake = ModuleType('pytorch_grad_cam')
    fake.GradCAMPlusPlus = None
    fake.base_cam = SimpleNamespace(BaseCAM=type('BaseCAM', (), {}))
    fake.ActivationsAndGradients = fake.show_cam_on_image = None
    for name in (
        names[0],
        f'{names[0]}.{names[1]}',
        f'{names[0]}.{names[2]}',
        f'{names[0]}.{names[2]}.{names[3]}',
    ):
        monkeypatch.setitem(sys.modules, name, fake)
    path = Path(mmpretrain.__file__).parent / '.mim/tools/visualization/vis_cam.py'
    spec = importlib.util.spec_from_file_location('vis_cam', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Model(nn.Module):
    """The input of the tool: a model with a backbone."""

    def __init__(self, name):
        super().__init__()
        self.backbone = make_backbone(name)


def watched(vis_cam, model, layer, name, args):
    """The map that the tool would draw, and its gradient."""
    seen = []
    layer.register_forward_hook(lambda module, inputs, out: seen.append(out))
    feature = model.backbone(images_for(name))[-1]
    (tokens,) = seen
    found = vis_cam.reshape_transform(tokens, model, args)
    weights = torch.randn(feature.shape[1], generator=torch.Generator().manual_seed(0))
    feature = feature if feature.ndim == 2 else feature.mean((2, 3))
    (gradient,) = torch.autograd.grad((feature * weights).sum(), tokens)
    return found, vis_cam.reshape_transform(gradient, model, args)


@pytest.mark.parametrize('extra', [None, 0])
@pytest.mark.parametrize(
    'name, channels, side',
    [
        ('plain_mamba', 16, 4),
        ('vrwkv_v4', 24, 4),
        ('vrwkv_v6', 24, 4),
        ('vmamba_v0', 128, 1),
        ('vmamba_noz', 128, 1),
    ],
)
def test_maps_of_backbones_without_class_token(name, channels, side, extra, vis_cam):
    args = SimpleNamespace(vit_like=True, num_extra_tokens=extra)
    model = Model(name)
    (layer,) = vis_cam.get_default_target_layers(model, args)
    for found in watched(vis_cam, model, layer, name, args):
        assert found.shape == (2, channels, side, side)
        assert found.abs().sum((0, 1)).min() > 0  # every place matters


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
def test_maps_of_vim(out_type, vis_cam):
    """Its class token is in the middle; the map is the patches around it."""
    args = SimpleNamespace(vit_like=False, num_extra_tokens=None)
    model = Model('vim')
    model.backbone.out_type = out_type
    expected = model.backbone(images_for('vim'))[-1]
    layer = vis_cam.get_layer('backbone.token_map', model)
    found, gradient = watched(vis_cam, model, layer, 'vim', args)
    assert found.shape == gradient.shape == (2, 16, 4, 4)
    assert gradient.abs().sum((0, 1)).min() > 0
    torch.testing.assert_close(model.backbone(images_for('vim'))[-1], expected)
    # In the last block's input the patches stand around the class token.
    inputs = []
    model.backbone.layers[-1].register_forward_pre_hook(
        lambda module, args: inputs.append(args[0])
    )
    model.backbone(images_for('vim'))
    at = model.backbone.cls_at(16)
    patches = torch.cat((inputs[0][:, :at], inputs[0][:, at + 1 :]), 1)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), patches)
