"""Every module of a mixer is called, so that what wraps or hooks modules takes part."""

import copy

import pytest
import torch
from tiny_decoders import MIXERS
from torch import nn

from mmtransmamba.models.language import MAMBA
from mmtransmamba.models.language.mixers.base import DecoderMixer
from mmtransmamba.models.language.mixers.fields import fields_of, mixer_class

FIELDS = dict(in_bias=True, out_bias=True)


@pytest.fixture
def make_mixed(make_hybrid):
    """A hybrid with every projection a mixer can have."""

    def make(mixer, family='qwen3', layout='mamba first'):
        normed = family == 'qwen3' and 'qk_norm' in fields_of(mixer_class(mixer))
        more = dict(qk_norm=True) if normed else {}
        return make_hybrid(family, layout, mixer=dict(type=mixer, **FIELDS, **more))

    return make


def ids():
    return torch.randint(3, 61, (2, 7), generator=torch.Generator().manual_seed(1))


def projections(model):
    """Names of the linear layers of mixers, without layer numbers."""
    return sorted(
        {
            name
            for mixer in model.modules()
            if isinstance(mixer, DecoderMixer)
            for name, module in mixer.named_modules()
            if isinstance(module, nn.Linear)
        }
    )


@pytest.mark.parametrize('mixer', MIXERS)
def test_all_modules_with_parameters_are_called(make_mixed, mixer):
    model = make_mixed(mixer)
    called = set()
    names = {}
    for name, module in model.named_modules():
        if list(module.parameters(recurse=False)):
            names[module] = name
            module.register_forward_hook(lambda m, *_: called.add(names[m]))
    prompt = ids()
    model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=2)
    assert called == set(names.values())


@pytest.mark.parametrize('layout', ['mamba first', 'pure'])
@pytest.mark.parametrize('mixer', MIXERS)
def test_offloaded_weights_say_the_same(make_mixed, mixer, layout, tmp_path):
    from accelerate import cpu_offload, disk_offload

    model = make_mixed(mixer, layout=layout)
    prompt = ids()
    how = dict(attention_mask=torch.ones_like(prompt), max_new_tokens=3)
    with torch.no_grad():
        expected = model(prompt, use_cache=False).logits
        said = model.generate(prompt, do_sample=False, **how)
        for offload in (
            lambda m: cpu_offload(m, execution_device='cpu'),
            lambda m: disk_offload(m, str(tmp_path), execution_device='cpu'),
        ):
            away = copy.deepcopy(model)
            offload(away)
            assert away.model.layers[0].self_attn.out_proj.weight.device.type == 'meta'
            assert torch.equal(away(prompt, use_cache=False).logits, expected)
            assert torch.equal(away.generate(prompt, do_sample=False, **how), said)


@pytest.mark.parametrize(
    'mixer, target',
    [
        *(('Mamba', name) for name in ('in_proj', 'x_proj', 'dt_proj', 'out_proj')),
        *(('Mamba2', f'{name}_proj') for name in ('x', 'B', 'C', 'dt', 'z', 'out')),
    ],
)
def test_lora_learns_on_every_projection(make_mixed, mixer, target):
    """Each alone has an effect, gets a gradient, and is merged."""
    from peft import LoraConfig, get_peft_model

    model = make_mixed(mixer)
    assert target in projections(model)
    prompt = ids()
    with torch.no_grad():
        before = model(prompt).logits
    config = LoraConfig(
        target_modules=[target], r=2, lora_alpha=64, init_lora_weights=False
    )
    adapted = get_peft_model(model, config).eval()
    adapted(prompt, labels=prompt).loss.backward()
    learned = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    assert len(learned) == 2 * model.config.layer_types.count(MAMBA)
    assert all(p.grad.abs().max() > 0 for p in learned.values())
    with torch.no_grad():
        after = adapted(prompt).logits
        assert (after - before).abs().max() > 1e-3
        merged = adapted.merge_and_unload()(prompt).logits
    torch.testing.assert_close(merged, after, rtol=1e-3, atol=1e-4)


def test_every_projection_has_been_named(make_mixed):
    """By the test above."""
    assert projections(make_mixed('Mamba')) == [
        'dt_proj',
        'in_proj',
        'out_proj',
        'x_proj',
    ]
    assert projections(make_mixed('Mamba2')) == [
        'B_proj',
        'C_proj',
        'dt_proj',
        'out_proj',
        'x_proj',
        'z_proj',
    ]


@pytest.mark.parametrize('mixer', MIXERS)
def test_dynamically_quantised_layers_take_part(make_mixed, mixer):
    model = make_mixed(mixer)
    prompt = ids()
    with torch.no_grad():
        expected = model(prompt).logits
        model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
        kinds = {
            type(m).__module__ for m in model.modules() if 'Linear' in repr(type(m))
        }
        assert any('quantized' in kind for kind in kinds)
        error = model(prompt).logits - expected
    assert 0 < error.abs().max() < 0.2 * expected.abs().max()


@pytest.mark.parametrize('mixer', MIXERS)
def test_linear_layers_of_another_class_take_part(make_mixed, mixer):
    """As quantisers put in, whose packed weight has another shape."""

    class Packed(nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.weight = nn.Parameter(linear.weight.detach().flatten().clone())
            self.shape, self.bias = linear.weight.shape, linear.bias

        def forward(self, x):
            weight = self.weight.view(self.shape).to(x.dtype)
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return nn.functional.linear(x, weight, bias)

    model = make_mixed(mixer)
    prompt = ids()
    with torch.no_grad():
        expected = model(prompt).logits
        for layer in model.model.layers:
            for name, module in list(layer.self_attn.named_children()):
                if isinstance(module, nn.Linear):
                    setattr(layer.self_attn, name, Packed(module))
        torch.testing.assert_close(model(prompt).logits, expected)
