"""Whatever wraps a projection of a mixer works: adapters, quantisation, hooks."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from tiny_backbones import BACKBONES, images_for, make_backbone
from torch import nn
from torch.nn.utils import parametrize

from mmtransmamba.models.mixers import (
    BiMambaMixer,
    PlainMambaMixer,
    SS2DMixer,
    VRWKV6SpatialMix,
    VRWKVChannelMix,
    VRWKVSpatialMix,
)
from mmtransmamba.models.mixers.projections import is_plain
from mmtransmamba.models.taps import DirectionTap

MIXERS = (
    BiMambaMixer,
    PlainMambaMixer,
    SS2DMixer,
    VRWKV6SpatialMix,
    VRWKVChannelMix,
    VRWKVSpatialMix,
)
CONVS = (nn.Conv1d, nn.Conv2d)
each = pytest.mark.parametrize('name', BACKBONES)


def projections(model, kinds=(nn.Linear, *CONVS)):
    """The linear layers and convolutions of a model's mixers, by name."""
    return {
        f'{path}.{name}': module
        for path, mixer in model.named_modules()
        if isinstance(mixer, MIXERS)
        for name, module in mixer.named_modules()
        if isinstance(module, kinds)
    }


def outputs(model, name):
    return model(images_for(name))[-1]


def assert_close(found, expected, tolerance=1e-4):
    torch.testing.assert_close(
        found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())
    )


@each
def test_hooks_see_every_projection(name):
    model = make_backbone(name)
    expected = outputs(model, name)
    seen = {}
    for key, module in projections(model).items():
        module.register_forward_hook(
            lambda m, args, out, key=key: seen.update({key: args[0]})
        )
    assert_close(outputs(model, name), expected)
    assert set(seen) == set(projections(model)) and seen
    assert all(x.abs().sum() > 0 for x in seen.values())  # no call for a bias alone


@each
def test_a_replaced_forward_is_used(name):
    """As offloading has it, whose weights are elsewhere until they are asked for."""
    model = make_backbone(name)
    expected = outputs(model, name)
    for module in projections(model).values():
        own = copy.deepcopy(module)
        module.forward = own.forward
        module.to('meta')
    assert_close(outputs(model, name), expected)


@each
def test_parametrised_weights_are_used(name):
    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    model, doubled = make_backbone(name), make_backbone(name)
    for module in projections(model).values():
        parametrize.register_parametrization(module, 'weight', Double())
    for module in projections(doubled).values():
        module.weight.data.mul_(2)
    assert_close(outputs(model, name), outputs(doubled, name))


@each
@pytest.mark.parametrize('dora', [False, True])
def test_lora_learns_on_every_linear_layer(name, dora):
    model = make_backbone(name)
    targets = list(projections(model, nn.Linear))
    expected = outputs(model, name)
    config = LoraConfig(r=2, target_modules=targets, use_dora=dora)
    inject_adapter_in_model(config, model)
    adapters = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    assert len(adapters) == len(targets)
    assert_close(outputs(model, name), expected)  # B starts as zero
    outputs(model, name).square().sum().backward()
    for key, parameter in model.named_parameters():
        if 'lora_B' in key:
            assert parameter.grad.abs().sum() > 0, key
            parameter.data = 0.3 * torch.randn_like(parameter)
    adapted = outputs(model, name)
    assert (adapted - expected).abs().max() > 1e-2
    for adapter in adapters:
        adapter.merge()
    assert_close(outputs(model, name), adapted, 1e-3)


@each
def test_lora_learns_on_every_convolution(name):
    model = make_backbone(name)
    convs = projections(model, CONVS)
    if not convs:
        pytest.skip('its mixers have no convolution')
    rank = next(iter(convs.values())).groups  # PEFT wants a multiple of them
    same = [key for key, conv in convs.items() if conv.groups == rank]
    inject_adapter_in_model(LoraConfig(r=rank, target_modules=same), model)
    expected = outputs(model, name)
    expected.square().sum().backward()
    for key, parameter in model.named_parameters():
        if 'lora_B' in key:
            assert parameter.grad.abs().sum() > 0, key
            parameter.data = torch.randn_like(parameter)
    assert (outputs(model, name) - expected).abs().max() > 1e-3


@each
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_dynamic_quantisation(name):
    model = make_backbone(name)
    expected = outputs(model, name)
    quantised = torch.ao.quantization.quantize_dynamic(
        model, {nn.Linear}, dtype=torch.qint8
    )
    assert not projections(quantised, nn.Linear)
    found = outputs(quantised, name)
    assert (found - expected).norm() < 0.2 * expected.norm()


@each
def test_directions_pass_through_what_wraps_the_output_projection(name):
    model = make_backbone(name)
    mixer = next(m for m in model.modules() if isinstance(m, MIXERS))
    last = 'output' if hasattr(mixer, 'output') else 'out_proj'
    taps = [m for m in model.modules() if isinstance(m, DirectionTap)]
    projected = []
    for wrapped in (False, True):
        if wrapped:
            getattr(mixer, last).register_forward_hook(lambda m, args, out: 2 * out)
        seen = []
        taps[0].listener = seen.append
        taps[0].select = lambda order: torch.arange(order.shape[1]).expand_as(order)
        outputs(model, name)
        projected.append(seen[0].project(seen[0].values))
    assert_close(projected[1], 2 * projected[0])


@pytest.mark.parametrize('kind', [nn.Linear, nn.Conv1d, nn.Conv2d])
def test_what_is_plain(kind):
    def module():
        return kind(4, 4) if kind is nn.Linear else kind(4, 4, 3)

    class Sub(kind):
        pass

    plain = module()
    assert is_plain(plain)
    sub = Sub(4, 4) if kind is nn.Linear else Sub(4, 4, 3)
    hooked, replaced, own = module(), module(), module()
    handle = hooked.register_forward_pre_hook(lambda m, args: None)
    replaced.forward = plain.forward
    own.weight = nn.Parameter(own.weight.detach().as_subclass(Strange))
    for other in (sub, hooked, replaced, own):
        assert not is_plain(other)
    handle.remove()
    assert is_plain(hooked)


class Strange(torch.Tensor):
    """A tensor of a library for quantisation or sharding."""


def test_compiles_and_exports_as_before():
    model = make_backbone('vim')
    images = images_for('vim')
    exported = torch.export.export(model, (images,)).module()
    assert_close(exported(images)[-1], model(images)[-1])
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    assert_close(compiled(images)[-1], model(images)[-1])
