"""Vision-RWKV against the official code's numbers, and as a backbone."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import GOLDEN_DIR

from mmtransmamba.models import VRWKV, load_pretrained
from mmtransmamba.models.mixers.vrwkv import (
    VRWKV6SpatialMix,
    VRWKVSpatialMix,
    q_shift,
)

PLAIN = dict(
    embed_dims=32,
    depth=2,
    num_heads=None,
    post_norm=False,
    init_values=None,
    key_norm=False,
    drop_path_rate=0.0,
)
TINY = {
    'v4': PLAIN,
    'v4-large': {**PLAIN, 'post_norm': True, 'init_values': 0.5, 'key_norm': True},
    'v6': {**PLAIN, 'num_heads': 2},
    'v6-small': {**PLAIN, 'num_heads': 2, 'post_norm': True, 'init_values': 0.5},
}

each = pytest.mark.parametrize('kind', TINY)


def tiny(kind='v4', **kwargs):
    torch.manual_seed(0)
    settings = dict(arch=TINY[kind], img_size=32, patch_size=8) | kwargs
    model = VRWKV(**settings)
    model.init_weights()
    return model


def trained(kind='v4', **kwargs):
    """A model whose parameters are all away from their initial values."""
    model = tiny(kind, **kwargs)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


def official(kind='v4', container=None, prefix='backbone.'):
    """A checkpoint as released, with a head of five classes, and its model."""
    model, head = trained(kind).eval(), torch.nn.Linear(32, 5)
    state = {prefix + k: v for k, v in model.state_dict().items()}
    before = prefix.removesuffix('backbone.')
    state |= {f'{before}head.fc.{k}': v for k, v in head.state_dict().items()}
    return model, head, {container: state} if container else state


def test_token_shift_equals_official_code():
    golden = {
        k: torch.from_numpy(v) for k, v in np.load(GOLDEN_DIR / 'wkv.npz').items()
    }
    tokens = golden['qshift_in']
    assert torch.equal(q_shift(tokens, (3, 4)), golden['qshift_3x4_out'])
    by_heads = q_shift(tokens, (3, 4), heads=2)
    assert torch.equal(by_heads, golden['qshift_multihead8_3x4_out'])
    # A single row and a single column: what would come from outside is zero.
    for grid in ((1, 12), (12, 1)):
        assert q_shift(tokens, grid).shape == tokens.shape


def test_parameter_count_of_large():
    with torch.device('meta'):
        model = VRWKV('large', img_size=192)
    # The published 334.9 M are met by a head with one hidden layer of 3 x 1024.
    head = 1024 * 3072 + 3072 + 3072 * 1000 + 1000
    params = sum(p.numel() for p in model.parameters())
    assert params == 328_659_968
    assert round((params + head) / 1e6, 1) == 334.9
    names = dict(model.named_parameters())
    assert names['layers.23.att.key_norm.weight'].shape == (1024,)
    assert names['layers.23.ffn.key_norm.weight'].shape == (4096,)


@each
def test_a_block_is_two_residual_branches(kind):
    model = trained(kind).eval()
    settings, tokens, grid = TINY[kind], torch.randn(2, 12, 32), (3, 4)
    for i, block in enumerate(model.layers):
        x = block.ln0(tokens) if i == 0 else tokens
        for mixer, norm, gamma in (
            (block.att, block.ln1, block.gamma1),
            (block.ffn, block.ln2, block.gamma2),
        ):
            if settings['post_norm']:
                branch = norm(mixer(x, grid))
            else:
                branch = mixer(norm(x), grid)
            x = x + (branch if gamma is None else gamma * branch)
        torch.testing.assert_close(block(tokens, grid), x)
    assert (model.layers[1].ln0, model.layers[0].gamma1 is None) == (
        None,
        settings['init_values'] is None,
    )


def test_drop_path_skips_both_branches_in_training_only():
    model = tiny(drop_path_rate=1.0)  # the last block always dropped
    images = torch.randn(2, 3, 32, 32)
    tokens = []
    for tap in model.layer_taps:
        tap.listener = lambda feature: tokens.append(feature.tokens)
    model.train()(images)
    assert torch.equal(tokens[0], tokens[1])
    tokens.clear()
    model.eval()(images)
    assert not torch.equal(tokens[0], tokens[1])
    with torch.device('meta'):
        small = VRWKV('small')
    assert [small.layers[i].drop_path.p for i in (0, 11)] == [0, 0.3]


@each
@pytest.mark.parametrize('num_tokens', [12, 5])
def test_direction_taps_sum_to_the_mixer_output(kind, num_tokens):
    mixer = trained(kind).layers[1].att
    tokens, grid = torch.randn(2, 12, 32), (3, 4)
    chosen = torch.randperm(12)[:num_tokens]
    tap, seen = mixer.direction_tap, []
    tap.listener = seen.append
    tap.select = lambda order: order.argsort(1)[:, chosen]
    out = mixer(tokens, grid)
    (feature,) = seen
    assert feature.values.shape == (2, 2, num_tokens, 32)
    assert feature.grid == grid
    assert all(torch.equal(index, chosen) for index in feature.token_index)

    total = feature.project(feature.values).sum(1)
    # The only part that no direction computes: the bias of a norm, behind the gate.
    if isinstance(mixer, VRWKV6SpatialMix):
        for_g = mixer._mixtures(tokens, grid)[-1]
        gate, bias = F.silu(mixer.gate(for_g)), mixer.ln_x.bias
        total = total + mixer.output(gate[:, chosen] * bias)
    elif mixer.key_norm is not None:
        shifted = q_shift(tokens, grid)
        for_r = shifted + (tokens - shifted) * mixer.spatial_mix_r
        gate = torch.sigmoid(mixer.receptance(for_r))
        total = total + mixer.output(gate[:, chosen] * mixer.key_norm.bias)
    torch.testing.assert_close(total, out[:, chosen], rtol=1e-4, atol=1e-5)
    # The identity holds for all inputs, so for the gradients as well.
    direction = torch.randn_like(total)
    parameters = list(mixer.parameters())
    grads = [
        torch.autograd.grad((value * direction).sum(), parameters, retain_graph=True)
        for value in (total, out[:, chosen])
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@each
def test_the_forward_direction_knows_nothing_of_later_tokens(kind):
    mixer = trained(kind).layers[1].att
    tap, seen = mixer.direction_tap, []
    tap.listener = seen.append
    tap.select = lambda order: torch.arange(12).expand(2, 12)
    tokens = torch.randn(1, 12, 32)
    # In a single row, the shift lets a token see no further than the next one.
    mixer(tokens, (1, 12))
    mixer(torch.cat((tokens[:, :8], tokens[:, 8:] + 1), dim=1), (1, 12))
    first, second = (f.values for f in seen)
    assert seen[0].token_index[0].tolist() == list(range(12))
    assert seen[0].token_index[1].tolist() == list(range(11, -1, -1))
    if isinstance(mixer, VRWKV6SpatialMix):
        # No common denominator: the direction itself is causal.
        torch.testing.assert_close(first[:, 0, :7], second[:, 0, :7])
    assert not torch.allclose(first[:, 0, 8:], second[:, 0, 8:])
    assert not torch.allclose(first[:, 1], second[:, 1])


class TestLoading:
    def test_head_of_large_is_left_over(self):
        model, _, state = official(prefix='')
        state = {k: v for k, v in state.items() if not k.startswith('head.')}
        state |= {f'head.{i}.weight': torch.ones(3, 3) for i in (0, 2)}
        report = load_pretrained(tiny(), state)
        assert report.left_over == ['head.0.weight', 'head.2.weight']


def test_initialisation_of_v4():
    mixers = [VRWKVSpatialMix(192, i, 12) for i in (0, 11)]
    for mixer, power in zip(mixers, (0.7, 2.0), strict=True):
        decay = mixer.spatial_decay
        assert decay[[0, -1]].tolist() == pytest.approx([-5, 3])
        assert decay[95].item() == pytest.approx(-5 + 8 * (95 / 191) ** power, abs=1e-5)
        first = math.log(0.3)
        assert mixer.spatial_first[:4].tolist() == pytest.approx(
            [first, first + 0.5, first - 0.5, first]
        )
    # The first block: channel c takes c / C of itself; the last one nearly all.
    c = torch.arange(192.0) / 192
    torch.testing.assert_close(mixers[0].spatial_mix_k.flatten(), c)
    torch.testing.assert_close(mixers[0].spatial_mix_r.flatten(), c.sqrt())
    torch.testing.assert_close(
        mixers[1].spatial_mix_v.flatten(), c ** (1 / 12) + 0.3, rtol=1e-5, atol=1e-6
    )

    model = tiny('v4-large')
    before = model.layers[1].att.spatial_decay.clone()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    model.reset_parameters()
    assert torch.equal(model.layers[1].att.spatial_decay, before)
    assert (model.layers[0].gamma1 == 0.5).all() and (model.ln1.weight == 1).all()
    assert (model.layers[1].ffn.key_norm.weight == 1).all()
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    bound = 32**-0.5
    assert 0.95 * bound < model.layers[1].att.key.weight.abs().max() <= bound


def test_initialisation_of_v6():
    first, last = (VRWKV6SpatialMix(192, i, 12, 3) for i in (0, 11))
    for mixer, power in ((first, 0.7), (last, 2.0)):
        decay = mixer.time_decay.flatten()
        assert decay[[0, -1]].tolist() == pytest.approx([-6, -1])
        assert decay[95].item() == pytest.approx(-6 + 5 * (95 / 191) ** power, abs=1e-5)
        for name in ('maa_w1', 'maa_w2', 'decay_w1', 'decay_w2'):
            weight = getattr(mixer, f'time_{name}')
            assert 0.9e-4 < weight.abs().max() <= 1e-4
    c = torch.arange(192.0) / 192
    torch.testing.assert_close(first.time_maa_x.flatten(), 1 - c)
    torch.testing.assert_close(first.time_maa_g.flatten(), 1 - c.sqrt())
    torch.testing.assert_close(
        last.time_maa_v.flatten(), 0.7 - c ** (1 / 12), rtol=1e-5, atol=1e-6
    )
    zigzag = torch.tensor([0, 0.1, -0.1]).repeat(64)
    torch.testing.assert_close(first.time_faaaa.flatten(), zigzag)
    falling = 1 - torch.arange(192) / 191
    torch.testing.assert_close(last.time_faaaa.flatten(), zigzag + falling)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch=dict(depth=2)), 'missing: drop_path_rate, embed_dims'),
        (dict(arch={**PLAIN, 'embed_dims': 30}), 'embed_dims=30 must be a multiple'),
        (dict(arch={**PLAIN, 'num_heads': 3}), 'multiple of 12.*each of 3 heads'),
        (dict(wkv_rule='kernel'), "wkv_rule='kernel' must be one of formula, cuda"),
        (dict(kind='v6', wkv_rule='cuda'), "v6 has only 'formula'"),
        (dict(arch={**PLAIN, 'num_heads': 0}), 'num_heads=0 must be a positive'),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)
