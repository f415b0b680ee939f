"""Mixers of vision encoders against dense attention matrices in float64."""

from types import SimpleNamespace

import pytest
import torch
from tiny_encoders import images, tiny_encoder
from torch.nn import functional as F

import mmtransmamba
from mmtransmamba.models.vision.mixers import (
    GatedDeltaNetEncoderMixer,
    Mamba2EncoderMixer,
)
from mmtransmamba.models.vision.mixers.base import OPEN, rotated

MIXERS = (Mamba2EncoderMixer, GatedDeltaNetEncoderMixer)
CONFIG = SimpleNamespace(hidden_size=12, num_attention_heads=3, prefix_tokens=1)


def mixer(cls=Mamba2EncoderMixer, **fields):
    torch.manual_seed(0)
    return cls(CONFIG, 0, **fields).double()


def tokens(length=7):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, length, 12, generator=generator, dtype=torch.float64)


def test_mamba2_is_a_dense_matrix_for_each_head():
    block, x = mixer(), tokens()
    v, k, q = (
        getattr(block, name)(x).unflatten(-1, (3, 4)).transpose(1, 2)
        for name in ('x_proj', 'B_proj', 'C_proj')
    )
    dt = F.softplus(block.dt_proj(x).unflatten(-1, (2, 3)).float() + block.dt_bias)
    dt, A = dt.double(), -block.A_log.float().exp().double()
    before, after = (torch.ones(7, 7).tril(), torch.ones(7, 7).triu(1))
    mask = torch.zeros(2, 3, 7, 7, dtype=torch.float64)
    for t in range(7):
        for s in range(7):
            way, steps = (0, slice(s + 1, t + 1)) if before[t, s] else (1, slice(t, s))
            decay = torch.exp(A[way] * dt[:, steps, way].sum(1))
            mask[:, :, t, s] = decay * dt[:, s, way]
    assert before.add(after).eq(1).all()
    scores = F.silu(q) @ F.silu(k).mT
    y = (mask * scores) @ v + block.D[:, None, None].double() * v
    y = y.transpose(1, 2)
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)
    expected = block.out_proj(y.flatten(-2) * F.silu(block.z_proj(x)))
    torch.testing.assert_close(block(x)[0], expected, atol=1e-5, rtol=1e-5)


def test_without_decay_and_activation_mamba2_is_linear_attention_over_all_tokens():
    fields = dict(activation='identity', norm='none', gate=False, skip=False)
    block, x = mixer(**fields), tokens()
    with torch.no_grad():
        block.A_log.fill_(-40)
        block.dt_proj.weight.zero_()
        block.dt_bias.fill_(torch.tensor(1.0).expm1().log())
    v, k, q = (
        getattr(block, name)(x).unflatten(-1, (3, 4)).transpose(1, 2)
        for name in ('x_proj', 'B_proj', 'C_proj')
    )
    y = ((q @ k.mT) @ v).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(block(x)[0], block.out_proj(y), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('cls', MIXERS)
def test_every_token_depends_on_every_token(cls):
    block, x = mixer(cls), tokens().requires_grad_()
    for place in range(7):
        (grad,) = torch.autograd.grad(block(x)[0][0, place].sum(), x)
        assert grad[0].abs().sum(-1).gt(0).all() and not grad[1].any()


@pytest.mark.parametrize('cls', MIXERS)
def test_sweeps_are_the_parts_of_the_normalised_output(cls):
    block, x = mixer(cls), tokens()
    block.grid, heard, inner = (2, 3), [], []
    block.direction_tap.listener = heard.append
    block.direction_tap.select = lambda order: torch.arange(6).expand(2, -1)
    block.out_proj.register_forward_pre_hook(lambda module, args: inner.append(args[0]))
    block(x)
    (feature,) = heard
    assert feature.values.shape == (2, 2, 6, 12) and feature.grid == (2, 3)
    assert feature.token_index.tolist() == [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]
    total = feature.values[:, 0] + feature.values[:, 1].flip(1)
    gated = total * F.silu(block.z_proj(x))[:, 1:]
    torch.testing.assert_close(gated, inner[0][:, 1:], atol=1e-5, rtol=1e-5)
    parts = feature.project(feature.values)
    expected = F.linear(inner[0][:, 1:], block.out_proj.weight)
    torch.testing.assert_close(
        parts[:, 0] + parts[:, 1].flip(1), expected, atol=1e-5, rtol=1e-5
    )


def test_a_listener_without_the_grid_of_the_patches_is_told():
    block = mixer()
    block.direction_tap.listener = print
    block.direction_tap.select = lambda order: order
    with pytest.raises(ValueError, match='grid None is not that of 6 patches'):
        block(tokens())


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="'head_mask'"):
        mixer()(tokens(), head_mask=None)


@pytest.mark.parametrize('name', ['ViTModel', 'Dinov2ForImageClassification'])
def test_an_encoder_with_mixers_refuses_a_mask(name):
    hybrid, _ = mmtransmamba.convert(tiny_encoder(name), layers=[0])
    with pytest.raises(ValueError, match=r'attention_mask \[2, 17\].*all tokens'):
        hybrid(images(), attention_mask=torch.ones(2, 17))


def test_rotary_positions_are_those_of_dinov3():
    from transformers.models.dinov3_vit.modeling_dinov3_vit import apply_rotary_pos_emb

    q, k = torch.randn(2, 2, 7, 3, 4)
    angles = torch.randn(6, 2).repeat(1, 2)
    expected = apply_rotary_pos_emb(
        q.transpose(1, 2), k.transpose(1, 2), angles.cos(), angles.sin()
    )
    for x, y in zip((q, k), expected, strict=True):
        own = rotated(x, angles.cos(), angles.sin())
        torch.testing.assert_close(own, y.transpose(1, 2))


def test_an_open_gate_changes_nothing():
    assert float(F.silu(torch.tensor(OPEN, dtype=torch.float64))) == pytest.approx(1)
