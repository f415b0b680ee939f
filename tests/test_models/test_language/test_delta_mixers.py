"""Mixers of the delta rule: seeded from attention, near it, as in transformers."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_decoders import tiny_teacher, tokens

from mmtransmamba.models.language import cast_parameters
from mmtransmamba.models.language.mixers.gated_delta_net import HALF_LIVES
from mmtransmamba.models.trainable.stages import group_of_parameters
from mmtransmamba.transfer.convert import convert

MIXERS = ('GatedDeltaNet', 'KDA')
both = pytest.mark.parametrize('mixer', MIXERS)


def converted(mixer, init='mimic', family='qwen3', layers=(0, 2)):
    teacher = tiny_teacher(family)
    model, report = convert(teacher, list(layers), init=init, mixer=mixer)
    return teacher, model, report


@both
@pytest.mark.parametrize('init', ['mimic', 'vkq'])
@pytest.mark.parametrize('family', ['llama', 'phi', 'qwen2', 'qwen3'])
def test_projections_come_from_the_attention(mixer, init, family):
    teacher, model, report = converted(mixer, init, family)
    attention, own = (m.model.layers[2].self_attn for m in (teacher, model))
    theirs = dict(attention.named_parameters())
    renamed = {
        n.replace('o_proj', 'out_proj').replace('dense', 'out_proj') for n in theirs
    }
    assert renamed <= dict(own.named_parameters()).keys()
    for name, value in theirs.items():
        name = name.replace('o_proj', 'out_proj').replace('dense', 'out_proj')
        assert torch.equal(own.get_parameter(name), value), name
    assert not report.unused


@both
def test_new_parts_start_near_attention(mixer):
    _, model, report = converted(mixer)
    own = model.model.layers[0].self_attn
    hidden = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        lives = math.log(2) / -own.log_decays(hidden)
        z = own.z_proj(hidden)
        gate = F.silu(z) if own.gate_activation == 'silu' else z.sigmoid()
        beta = own.beta_proj(hidden).sigmoid()
    lives = lives.unflatten(-1, (4, -1))
    first, last = (torch.full_like(lives[..., 0, :], n) for n in HALF_LIVES)
    torch.testing.assert_close(lives[..., 0, :], first, rtol=1e-4, atol=0)
    torch.testing.assert_close(lives[..., -1, :], last, rtol=1e-3, atol=0)
    torch.testing.assert_close(beta, torch.full_like(beta, 0.5))
    assert gate.abs().mean() < 0.1
    assert torch.equal(
        own.conv1d.weight[..., -1], torch.ones_like(own.conv1d.weight[..., -1])
    )
    rests = {
        entry.rest for entry in report.entries if 'layers.0.self_attn' in entry.target
    }
    assert {'half-lives of 16 to 1024 tokens', 'zeros, A = -1', 'identity'} <= rests


@both
def test_a_converted_model_generates_and_learns_in_stages(mixer):
    _, model, _ = converted(mixer, 'vkq')
    prompt = tokens(2, 7)
    ids = torch.nn.functional.pad(prompt, (3, 0))
    mask = torch.nn.functional.pad(torch.ones_like(prompt), (3, 0))
    options = dict(max_new_tokens=4, do_sample=False)
    alone = model.generate(prompt, use_cache=False, **options)[:, 7:]
    padded = model.generate(ids, attention_mask=mask, **options)[:, 10:]
    assert torch.equal(padded, alone)
    groups = group_of_parameters(model)
    own = {n.split('.')[4]: g for n, g in groups.items() if 'layers.0.self_attn' in n}
    assert own == dict.fromkeys(own, 'ssm') | dict.fromkeys(
        ('q_proj', 'k_proj', 'v_proj', 'q_norm', 'k_norm'), 'qkv'
    ) | {'out_proj': 'out_proj'}
    model.train()(tokens(), labels=tokens()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@both
def test_decays_stay_in_float32_and_strengths_reach_two(mixer):
    fields = dict(type=mixer, negative=True)
    model, _ = convert(tiny_teacher(), [0], init='scratch', mixer=fields)
    assert model.config.mixer['negative'] is True
    own = cast_parameters(model, torch.bfloat16).model.layers[0].self_attn
    assert own.A_log.dtype == own.dt_bias.dtype == torch.float32
    assert own.q_proj.weight.dtype == torch.bfloat16
    assert model(tokens()).logits.isfinite().all()
    seen = []

    def rule(**steps):
        seen.append(steps['beta'])
        return type(own).rule(**steps)

    own.rule = rule
    torch.nn.init.constant_(own.beta_proj.weight, 3.0)
    model(tokens())
    assert 1 < seen[0].max() <= 2


def test_it_is_the_gated_delta_net_of_transformers():
    modeling = pytest.importorskip('transformers.models.qwen3_next.modeling_qwen3_next')
    _, model, _ = converted('GatedDeltaNet', 'scratch', 'llama')
    own = model.model.layers[0].self_attn
    hidden = torch.randn(2, 70, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        vkq = own.convolve(own.project(hidden), None, None)
        v, k, q = (x.unflatten(-1, (-1, 8)) for x in vkq.split((16, 16, 32), dim=-1))
        k, v = (x.repeat_interleave(2, dim=2) for x in (k, v))
        expected, _ = modeling.torch_recurrent_gated_delta_rule(
            q,
            k,
            v,
            g=own.log_decays(hidden),
            beta=own.beta_proj(hidden).sigmoid(),
            use_qk_l2norm_in_kernel=True,
        )
        variance = expected.square().mean(-1, keepdim=True)
        normed = (expected * torch.rsqrt(variance + 1e-5)).flatten(-2)
        gate = torch.nn.functional.silu(own.z_proj(hidden))
        expected = own.out_proj(normed * own.norm.weight * gate)
        torch.testing.assert_close(own(hidden)[0], expected, rtol=1e-4, atol=1e-5)
