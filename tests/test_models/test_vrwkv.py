"""Vision-RWKV against the official code's numbers, and as a backbone."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import GOLDEN_DIR, Golden

from mmtransmamba.models import VRWKV, CheckpointError, load_pretrained
from mmtransmamba.models.mixers.vrwkv import (
    VRWKV6SpatialMix,
    VRWKVSpatialMix,
    q_shift,
)
from mmtransmamba.models.taps import DirectionTap, LayerTap
from mmtransmamba.ops.backends import use_backend
from mmtransmamba.registry import MODELS

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


def classifier(kind='v4', img_size=32):
    import mmpretrain.models  # noqa: F401

    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmtransmamba.VRWKV',
                arch=TINY[kind],
                img_size=img_size,
                patch_size=8,
            ),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=32),
        )
    )


def official(kind='v4', container=None, prefix='backbone.'):
    """A checkpoint as released, with a head of five classes, and its model."""
    model, head = trained(kind).eval(), torch.nn.Linear(32, 5)
    state = {prefix + k: v for k, v in model.state_dict().items()}
    before = prefix.removesuffix('backbone.')
    state |= {f'{before}head.fc.{k}': v for k, v in head.state_dict().items()}
    return model, head, {container: state} if container else state


@pytest.mark.parametrize(
    ('name', 'rule'),
    [
        ('vrwkv_tiny', 'formula'),
        ('vrwkv_tiny', 'cuda'),
        ('vrwkv_tiny_192x256', 'formula'),
        ('vrwkv_tiny_192x256', 'cuda'),
        ('vrwkv6_tiny', 'formula'),
        ('vrwkv6_tiny_192x256', 'formula'),
    ],
)
def test_equals_official_code(name, rule):
    golden = Golden(name)
    v6 = name.startswith('vrwkv6')
    img_size = golden.info['facts']['img_size']
    model = VRWKV('v6-tiny' if v6 else 'tiny', img_size=img_size, wkv_rule=rule)
    report = load_pretrained(model.eval(), golden.state_dict())
    assert not (report.missing or report.left_over or report.converted)
    assert sum(p.numel() for p in model.parameters()) == golden.info['param_count']

    layers = {}
    for i, tap in enumerate(model.layer_taps):
        tap.listener = lambda feature, i=i: layers.update({i: feature.tokens})
    with torch.no_grad():
        tokens = model(golden.images())[0].flatten(2).transpose(1, 2)

    # In v4 the two rules lie 6e-6 apart: a looser tolerance would not tell them.
    feat, layer_limit = (3e-5, 1e-4) if v6 else (1.5e-6, 1.5e-6)
    prefix = 'kernel_' if rule == 'cuda' else ''
    rows = tokens[:, golden.info['feat_rows']]
    assert golden.error(f'{prefix}feat', tokens.mean(1)) < feat
    assert golden.error(f'{prefix}feat_rows', rows) < feat
    for key, layer in golden.info['layers'].items():
        i = int(key.split('_')[1])
        rows = layers[i][:, layer['rows']]
        assert golden.error(f'{prefix}layer_{i}', layers[i].mean(1)) < layer_limit
        assert golden.error(f'{prefix}rows_{i}', rows) < layer_limit


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


@pytest.mark.parametrize(
    ('arch', 'millions'),
    [
        ('tiny', 6.16),
        ('small', 23.82),
        ('base', 93.65),
        ('v6-tiny', 7.64),
        ('v6-small', 27.68),
        ('v6-base', 104.90),
    ],
)
def test_parameter_counts_with_head(arch, millions):
    with torch.device('meta'):
        model = VRWKV(arch)
    head = 1000 * model.embed_dims + 1000
    params = sum(p.numel() for p in model.parameters()) + head
    assert round(params / 1e6, 2) == millions


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


@pytest.mark.parametrize('arch', VRWKV.ARCHS)
def test_every_architecture_runs_forward_and_backward(arch):
    settings = {**VRWKV.ARCHS[arch], 'depth': 2}
    model = VRWKV(settings, img_size=32)
    model.init_weights()
    (out,) = model(torch.randn(2, 3, 48, 32))
    assert out.shape == (2, settings['embed_dims'], 3, 2)
    out.square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('arch', VRWKV.ARCHS)
def test_every_architecture_on_both_kernels(arch):
    settings = {**VRWKV.ARCHS[arch], 'depth': 2, 'drop_path_rate': 0.0}
    images = torch.randn(1, 3, 24, 16)
    direction = torch.randn(1, settings['embed_dims'], 3, 2)
    outs, grads = [], []
    for backend in ('reference', 'native'):
        model = trained(arch=settings)
        with use_backend(backend):
            (out,) = model(images)
            (out * direction).sum().backward()
        outs.append(out)
        grads.append({n: p.grad for n, p in model.named_parameters()})
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)
    for name, grad in grads[0].items():
        error = (grads[1][name] - grad).abs().max()
        assert error < 1e-4 * grad.abs().max(), name


@each
@pytest.mark.parametrize('size', [(32, 32), (40, 64), (8, 8), (35, 50)])
def test_any_image_size(kind, size):
    out = tiny(kind).eval()(torch.randn(1, 3, *size))[0]
    assert out.shape == (1, 32, size[0] // 8, size[1] // 8)
    assert out.isfinite().all()


def test_out_indices_and_final_norm():
    model = tiny(out_indices=(0, -1)).eval()
    tokens = {}
    for i, tap in enumerate(model.layer_taps):
        tap.listener = lambda feature, i=i: tokens.update({i: feature})
    first, last = model(torch.randn(1, 3, 32, 40))
    assert first.shape == last.shape == (1, 32, 4, 5)
    assert tokens[0].grid == (4, 5)
    torch.testing.assert_close(first.flatten(2).mT, tokens[0].tokens)
    torch.testing.assert_close(last.flatten(2).mT, model.ln1(tokens[1].tokens))


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


@each
def test_activation_checkpointing_has_the_same_gradient(kind):
    images = torch.randn(2, 3, 32, 32)
    grads = []
    for with_cp in (False, True):
        model = tiny(kind, with_cp=with_cp)
        model(images)[0].square().sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


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
def test_no_weight_decay_names_exist(kind):
    model = tiny(kind)
    names = model.no_weight_decay()
    assert names < {n for n, _ in model.named_parameters()}
    own = {
        False: ('spatial_decay', 'spatial_first', 'spatial_mix_v'),
        True: ('time_decay', 'time_faaaa', 'time_maa_x', 'time_maa_g'),
    }[kind.startswith('v6')]
    assert {'pos_embed', *(f'layers.1.att.{n}' for n in own)} < names
    assert 'layers.1.att.time_maa_w1' not in names
    assert 'layers.0.ffn.spatial_mix_k' in names


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
    # What no direction has made: the bias of a norm, behind the gate.
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


@each
def test_closed_taps_hear_nothing(kind):
    model = tiny(kind)
    assert sum(isinstance(m, LayerTap) for m in model.modules()) == 2
    taps = [m for m in model.modules() if isinstance(m, DirectionTap)]
    assert [t.num_directions for t in taps] == [2, 2]
    assert all(t.steps(torch.zeros(2, 1, dtype=torch.long)) is None for t in taps)


@each
def test_autocast_step_is_finite_and_keeps_the_stream_in_float32(kind):
    model = tiny(kind)
    streams = []
    for tap in model.layer_taps:
        tap.listener = lambda feature: streams.append(feature.tokens.dtype)
    images = torch.randn(2, 3, 32, 32)
    exact = model(images)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        (out,) = model(images)
    out.float().square().mean().backward()
    assert set(streams) == {torch.float32}
    assert all(p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.1)


@each
def test_half_and_double_models(kind):
    images = torch.randn(1, 3, 32, 32)
    exact = tiny(kind).double()(images.double())[0]
    assert exact.dtype == torch.float64
    half = tiny(kind).bfloat16()(images.bfloat16())[0]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), exact, rtol=0.15, atol=0.15)
    single = tiny(kind)(images)[0]
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-5)


class TestLoading:
    @each
    @pytest.mark.parametrize(
        ('container', 'prefix'),
        [
            ('model', ''),
            ('model_ema', 'module.'),
            ('state_dict', 'backbone.'),
            (None, 'module.backbone.'),
            (None, ''),
        ],
    )
    def test_official_containers(self, kind, container, prefix, tmp_path):
        model, _, content = official(kind, container, prefix)
        torch.save(content, tmp_path / 'official.pth')
        backbone = VRWKV(TINY[kind], img_size=32, patch_size=8).eval()
        report = load_pretrained(backbone, tmp_path / 'official.pth')
        assert len(report.left_over) == 2
        assert all('head.fc.' in name for name in report.left_over)
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(backbone(images)[0], model(images)[0])

    @each
    def test_classifier_has_the_logits_of_backbone_and_head(self, kind, tmp_path):
        model, head, content = official(kind, 'state_dict')
        torch.save(content, tmp_path / 'official.pth')
        images = torch.randn(2, 3, 32, 32)
        whole = classifier(kind).eval()
        report = load_pretrained(whole, tmp_path / 'official.pth')
        assert not (report.missing or report.left_over)
        expected = head(model(images)[0].mean((2, 3)))
        torch.testing.assert_close(whole(images), expected)

        larger = classifier(kind, img_size=64)
        report = load_pretrained(larger, tmp_path / 'official.pth')
        assert list(report.converted) == ['backbone.pos_embed']

    def test_head_of_large_is_left_over(self):
        model, _, state = official(prefix='')
        state = {k: v for k, v in state.items() if not k.startswith('head.')}
        state |= {f'head.{i}.weight': torch.ones(3, 3) for i in (0, 2)}
        report = load_pretrained(tiny(), state)
        assert report.left_over == ['head.0.weight', 'head.2.weight']

    def test_pretrained_init_cfg(self, tmp_path):
        model, _, content = official('v6-small', 'state_dict')
        torch.save(content, tmp_path / 'official.pth')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'official.pth'))
        same = tiny('v6-small', init_cfg=init_cfg)
        for name, value in model.state_dict().items():
            assert torch.equal(same.state_dict()[name], value), name

    def test_refuses_what_does_not_fit_and_changes_nothing(self):
        model = tiny()
        before = copy.deepcopy(model.state_dict())
        state = {k: v + 1 for k, v in before.items()}
        state['layers.0.att.spatial_dekay'] = state.pop('layers.0.att.spatial_decay')
        state['layers.1.ln1.weight'] = torch.ones(3)
        with pytest.raises(CheckpointError) as error:
            load_pretrained(model, state)
        for part in ('spatial_dekay', 'spatial_decay', 'layers.1.ln1.weight', '(3,)'):
            assert part in str(error.value)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        with pytest.raises(CheckpointError, match='time_maa_x'):
            load_pretrained(model, tiny('v6').state_dict())


def test_layer_depth_in_a_classifier():
    model = classifier()
    assert model.get_layer_depth('backbone.pos_embed') == (0, 4)
    assert model.get_layer_depth('backbone.patch_embed.projection.bias') == (0, 4)
    assert model.get_layer_depth('backbone.layers.0.ln0.weight') == (1, 4)
    assert model.get_layer_depth('backbone.layers.1.att.spatial_decay') == (2, 4)
    assert model.get_layer_depth('backbone.ln1.weight') == (3, 4)
    assert model.get_layer_depth('head.fc.weight') == (3, 4)


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
        (dict(arch='huge'), "unknown arch 'huge', choose one of tiny, small"),
        (dict(arch={**PLAIN, 'dim': 3}), 'unknown: dim'),
        (dict(arch=dict(depth=2)), 'missing: drop_path_rate, embed_dims'),
        (dict(arch={**PLAIN, 'embed_dims': 30}), 'embed_dims=30 must be a multiple'),
        (dict(arch={**PLAIN, 'num_heads': 3}), 'multiple of 12.*each of 3 heads'),
        (dict(wkv_rule='kernel'), "wkv_rule='kernel' must be one of formula, cuda"),
        (dict(kind='v6', wkv_rule='cuda'), "v6 has only 'formula'"),
        (dict(out_indices=5), r'out_indices=\(5,\) must lie in \[-2, 1\]'),
        (dict(arch=['tiny']), r"arch=\['tiny'\] must be one of tiny, .* or a dict"),
        (dict(arch={**PLAIN, 'depth': 0}), 'depth=0 must be a positive integer'),
        (dict(arch={**PLAIN, 'num_heads': 0}), 'num_heads=0 must be a positive'),
        (dict(patch_size=0), 'patch_size=0 must be a positive integer'),
        (dict(in_channels=0), 'in_channels=0 must be a positive integer'),
        (dict(drop_path_rate=2), r'drop_path_rate=2 must lie in \[0, 1\]'),
        (dict(img_size='32'), "img_size='32' must be an integer, or height"),
        (dict(img_size=4), 'smaller than one patch'),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)


@pytest.mark.parametrize(
    'shape, message',
    [
        ((1, 3, 4, 4), 'smaller than one patch'),
        ((1, 1, 32, 32), r'\[1, 1, 32, 32\]; accepted: \[B, 3, H, W\]'),
        ((3, 32, 32), r'accepted: \[B, 3, H, W\]'),
    ],
)
def test_bad_images(shape, message):
    with pytest.raises(ValueError, match=message):
        tiny()(torch.zeros(shape))
