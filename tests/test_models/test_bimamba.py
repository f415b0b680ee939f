"""What Vim and VideoMamba have in common, tested on both."""

import copy

import pytest
import torch
from golden import Golden

from mmtransmamba.models import CheckpointError, VideoMamba, Vim, load_pretrained
from mmtransmamba.models.mixers import BiMambaMixer
from mmtransmamba.models.taps import DirectionTap
from mmtransmamba.ops.backends import use_backend
from mmtransmamba.registry import MODELS

FAMILIES = [Vim, VideoMamba]
TINY = dict(embed_dims=32, depth=2)

both = pytest.mark.parametrize('family', FAMILIES)
every_arch = pytest.mark.parametrize(
    'family, arch', [(family, arch) for family in FAMILIES for arch in family.ARCHS]
)


def tiny(family, **kwargs):
    torch.manual_seed(0)
    model = family(**dict(arch=TINY, img_size=32, patch_size=8) | kwargs)
    model.init_weights()
    return model


def classifier(family, img_size=32, **backbone):
    import mmpretrain.models  # noqa: F401

    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type=f'mmtransmamba.{family.__name__}',
                arch=TINY,
                img_size=img_size,
                patch_size=8,
                **backbone,
            ),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=32),
        )
    )


def official(family, container=None, prefix='', **kwargs):
    """A state dict as released, with a head of five classes, and its model."""
    model = tiny(family, **kwargs).eval()
    head = torch.nn.Linear(32, 5)
    state = model.state_dict()
    state |= {f'head.{k}': v.clone() for k, v in head.state_dict().items()}
    state = {prefix + k: v for k, v in state.items()}
    return model, head, {container: state} if container else state


@pytest.mark.parametrize(
    'name',
    [
        'vim_tiny',
        'vim_tiny_192x256',
        'videomamba_tiny_image',
        'videomamba_tiny_image_192x256',
        'videomamba_tiny_video8',
    ],
)
def test_equals_official_code(name):
    golden = Golden(name)
    facts = golden.info['facts']
    if name.startswith('vim'):
        model = Vim('tiny', img_size=facts['img_size'])
    else:
        frames = facts.get('num_frames', 1)
        model = VideoMamba('tiny', img_size=facts['img_size'], num_frames=frames)
    state = golden.state_dict()
    report = load_pretrained(model.eval(), state)
    assert report.left_over == ['head.weight', 'head.bias']
    assert not (report.missing or report.converted)
    head_size = state['head.weight'].numel() + state['head.bias'].numel()
    params = sum(p.numel() for p in model.parameters()) + head_size
    assert params == golden.info['param_count']

    layers, mixers = {}, {}
    for i, layer in enumerate(model.layers):
        # The taps leave the class token out, which the golden rows have.
        layer.register_forward_hook(lambda m, a, out, i=i: layers.update({i: out}))
        layer.mixer.register_forward_hook(lambda m, a, o, i=i: mixers.update({i: o}))
    with torch.no_grad():
        out = model(golden.images())
    cls = out if isinstance(out, torch.Tensor) else out[0]

    logits = cls @ state['head.weight'].T + state['head.bias']
    assert golden.error('logits', logits) < 3e-5
    for key, layer in golden.info['layers'].items():
        i = int(key.split('_')[1])
        assert golden.error(f'layer_{i}', layers[i].mean(1)) < 1e-4
        assert golden.error(f'rows_{i}', layers[i][:, layer['rows']]) < 1e-4
        assert golden.error(f'mixer_{i}', mixers[i].mean(1)) < 1e-4


@every_arch
def test_every_architecture_runs_forward_and_backward(family, arch):
    model = family({**family.ARCHS[arch], 'depth': 2}, img_size=32)
    model.init_weights()
    (out,) = model(torch.randn(2, 3, 32, 32))
    assert out.shape == (2, family.ARCHS[arch]['embed_dims'])
    out.square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in model.parameters())


@every_arch
def test_every_architecture_on_both_kernels(family, arch):
    settings = {**family.ARCHS[arch], 'depth': 2}
    images = torch.randn(1, 3, 24, 16)
    direction = torch.randn(1, settings['embed_dims'], 3, 2)
    outs, grads = [], []
    for backend in ('reference', 'native'):
        # maps: the class token alone does not see all of the last scans
        model = tiny(family, arch=settings, out_type='featmap')
        with use_backend(backend):
            (out,) = model(images)
            (out * direction).sum().backward()
        outs.append(out)
        grads.append({n: p.grad for n, p in model.named_parameters()})
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)
    for name, grad in grads[0].items():
        error = (grads[1][name] - grad).abs().max()
        assert error < 1e-4 * grad.abs().max(), name


def test_mixer_is_two_scans_of_which_one_is_flipped():
    """The official code's way: flip all, scan each direction by itself, flip back."""
    from torch.nn import functional as F

    from mmtransmamba.ops import selective_scan_fn

    torch.manual_seed(0)
    for divide_out in (False, True):
        mixer = BiMambaMixer(16, d_state=4, divide_out=divide_out)
        tokens = torch.randn(2, 11, 16)

        def direction(x, suffix, mixer=mixer):
            conv = getattr(mixer, f'conv1d{suffix}')
            u = F.conv1d(F.pad(x, (3, 0)), conv.weight, conv.bias, groups=32)
            u = F.silu(u)
            dt, B, C = getattr(mixer, f'x_proj{suffix}')(u.mT).split((1, 4, 4), dim=-1)
            A_log = mixer.A_b_log if suffix else mixer.A_log
            return selective_scan_fn(
                u,
                getattr(mixer, f'dt_proj{suffix}')(dt).mT,
                -A_log.exp(),
                B.mT,
                C.mT,
                mixer.D_b if suffix else mixer.D,
                delta_softplus=True,
                backend='reference',
            )

        x, z = mixer.in_proj(tokens).mT.chunk(2, dim=1)
        y = direction(x, '') * F.silu(z)
        y = y + (direction(x.flip(2), '_b') * F.silu(z.flip(2))).flip(2)
        expected = mixer.out_proj((y / 2 if divide_out else y).mT)
        torch.testing.assert_close(mixer(tokens, (11,)), expected)


@both
@pytest.mark.parametrize('size', [(32, 32), (40, 64), (8, 8), (35, 50)])
def test_any_image_size(family, size):
    model = tiny(family, out_type='featmap').eval()
    out = model(torch.randn(1, 3, *size))[0]
    assert out.shape == (1, 32, size[0] // 8, size[1] // 8)
    assert out.isfinite().all()


@both
def test_out_indices_types_and_final_norm(family):
    images = torch.randn(2, 3, 32, 40)
    maps = tiny(family, out_indices=(0, -1), out_type='featmap').eval()
    tokens = {}
    for i, tap in enumerate(maps.layer_taps):
        tap.listener = lambda feature, i=i: tokens.update({i: feature})
    first, last = maps(images)
    assert first.shape == last.shape == (2, 32, 4, 5)
    assert tokens[0].grid == (4, 5)
    torch.testing.assert_close(first.flatten(2).mT, tokens[0].tokens)
    torch.testing.assert_close(last.flatten(2).mT, maps.norm_f(tokens[1].tokens))

    cls = tiny(family, out_indices=(0, -1)).eval()
    first, last = cls(images)
    torch.testing.assert_close(first, tokens[0].cls)
    torch.testing.assert_close(last, maps.norm_f(tokens[1].cls))


@both
def test_activation_checkpointing_has_the_same_gradient(family):
    images = torch.randn(2, 3, 32, 32)
    grads = []
    for with_cp in (False, True):
        model = tiny(family, with_cp=with_cp)
        model(images)[0].square().sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


@both
def test_drop_path_skips_blocks_in_training_only(family):
    model = tiny(family, drop_path_rate=1.0)  # the last block always dropped
    images = torch.randn(2, 3, 32, 32)
    tokens = []
    for tap in model.layer_taps:
        tap.listener = lambda feature: tokens.append(feature.tokens)
    model.train()(images)
    assert torch.equal(tokens[0], tokens[1])
    tokens.clear()
    model.eval()(images)
    assert not torch.equal(tokens[0], tokens[1])


@both
def test_no_weight_decay_names_exist(family):
    model = tiny(family)
    names = model.no_weight_decay()
    assert names < {n for n, _ in model.named_parameters()}
    mixer = {f'layers.1.mixer.{n}' for n in ('A_log', 'A_b_log', 'D', 'D_b')}
    assert {'pos_embed', 'cls_token'} | mixer < names


@both
def test_direction_taps_sum_to_the_mixer_output(family):
    model = tiny(family)
    mixer, tap = model.layers[1].mixer, model.layers[1].mixer.direction_tap
    at = model.cls_at(12)
    tokens = torch.randn(2, 13, 32)
    seen = []
    tap.listener = seen.append
    tap.select = lambda order: torch.arange(12).expand_as(order)
    out = mixer(tokens, (3, 4), at)
    (feature,) = seen
    assert feature.grid == (3, 4)
    assert feature.token_index[0].tolist() == list(range(12))
    assert feature.token_index[1].tolist() == list(range(11, -1, -1))
    total = torch.zeros(2, 12, 32)
    for k, index in enumerate(feature.token_index):
        total[:, index] += feature.project(feature.values)[:, k]
    patches = torch.cat((out[:, :at], out[:, at + 1 :]), dim=1)
    torch.testing.assert_close(patches, total)


@both
def test_closed_taps_hear_nothing(family):
    taps = [m for m in tiny(family).modules() if isinstance(m, DirectionTap)]
    assert len(taps) == 2
    assert all(t.steps(torch.zeros(2, 1, dtype=torch.long)) is None for t in taps)


@both
def test_autocast_step_is_finite_and_keeps_the_stream_in_float32(family):
    model = tiny(family)
    streams = []
    for layer in model.layers:
        layer.register_forward_hook(lambda m, a, out: streams.append(out.dtype))
    images = torch.randn(2, 3, 32, 32)
    exact = model(images)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        (out,) = model(images)
        loss = out.float().square().mean()
    loss.backward()
    assert set(streams) == {torch.float32}
    assert all(p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.1)


@both
def test_half_and_double_models(family):
    images = torch.randn(1, 3, 32, 32)
    exact = tiny(family).double()(images.double())[0]
    assert exact.dtype == torch.float64
    half = tiny(family).bfloat16()(images.bfloat16())[0]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), exact, rtol=0.1, atol=0.1)
    single = tiny(family)(images)[0]
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-5)


class TestLoading:
    @both
    @pytest.mark.parametrize(
        'container, prefix',
        [
            ('model', ''),
            ('model_ema', 'module.'),
            ('state_dict', 'backbone.'),
            (None, 'module.backbone.'),
            (None, ''),
        ],
    )
    def test_official_containers(self, family, container, prefix, tmp_path):
        model, head, content = official(family, container, prefix)
        torch.save(content, tmp_path / 'official.pth')
        images = torch.randn(2, 3, 32, 32)

        backbone = family(arch=TINY, img_size=32, patch_size=8).eval()
        report = load_pretrained(backbone, tmp_path / 'official.pth')
        assert [n.split('head.')[1] for n in report.left_over] == ['weight', 'bias']
        assert torch.equal(backbone(images)[0], model(images)[0])

    @both
    def test_classifier_has_the_logits_of_backbone_and_head(self, family, tmp_path):
        model, head, content = official(family, 'model')
        torch.save(content, tmp_path / 'official.pth')
        images = torch.randn(2, 3, 32, 32)
        whole = classifier(family).eval()
        report = load_pretrained(whole, tmp_path / 'official.pth')
        assert not (report.missing or report.left_over)
        assert torch.equal(whole(images), head(model(images)[0]))

    @both
    def test_pretrained_init_cfg_and_another_grid(self, family, tmp_path):
        model, _, content = official(family, 'model')
        torch.save(content, tmp_path / 'official.pth')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'official.pth'))
        larger = tiny(family, img_size=(40, 64), init_cfg=init_cfg)
        at, to = model.cls_at(16), model.cls_at(40)
        assert torch.equal(larger.pos_embed[:, to], model.pos_embed[:, at])
        assert torch.equal(larger.norm_f.weight, model.norm_f.weight)
        report = load_pretrained(larger, tmp_path / 'official.pth')
        assert list(report.converted) == ['pos_embed']

    @both
    def test_refuses_what_does_not_fit_and_changes_nothing(self, family):
        model = tiny(family)
        before = copy.deepcopy(model.state_dict())
        _, _, state = official(family)
        state = {k: v + 1 for k, v in state.items()}
        state['layers.0.mixer.A_blog'] = state.pop('layers.0.mixer.A_b_log')
        state['layers.1.norm.weight'] = torch.ones(3)
        with pytest.raises(CheckpointError) as error:
            load_pretrained(model, state)
        for part in ('A_blog', 'A_b_log', r'layers.1.norm.weight', r'(3,)'):
            assert part in str(error.value)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@both
def test_layer_depth_in_a_classifier(family):
    model = classifier(family)
    assert model.get_layer_depth('backbone.pos_embed') == (0, 4)
    assert model.get_layer_depth('backbone.cls_token') == (0, 4)
    assert model.get_layer_depth('backbone.patch_embed.proj.bias') == (0, 4)
    assert model.get_layer_depth('backbone.layers.1.mixer.D_b') == (2, 4)
    assert model.get_layer_depth('backbone.norm_f.weight') == (3, 4)
    assert model.get_layer_depth('head.fc.weight') == (3, 4)


@both
@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch='huge'), "unknown arch 'huge', choose one of tiny, small"),
        (dict(arch=dict(embed_dims=8, depth=2, dim=3)), 'unknown: dim'),
        (dict(arch=dict(depth=2)), 'missing: embed_dims'),
        (dict(out_indices=5), r'out_indices=\(5,\) must lie in \[-2, 1\]'),
        (dict(out_type='raw'), "out_type='raw' must be one of cls_token, featmap"),
        (dict(arch=None), 'arch=None must be one of tiny, small, .* or a dict'),
        (dict(arch={**TINY, 'depth': 0}), 'depth=0 must be a positive integer'),
        (dict(patch_size=0), 'patch_size=0 must be a positive integer'),
        (dict(in_channels=0), 'in_channels=0 must be a positive integer'),
        (dict(drop_path_rate=2), r'drop_path_rate=2 must lie in \[0, 1\]'),
        (dict(img_size=32.0), 'img_size=32.0 must be an integer, or height'),
        (dict(img_size=4), 'smaller than one patch'),
    ],
)
def test_bad_settings(family, kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny(family, **kwargs)


@both
@pytest.mark.parametrize(
    'shape, message',
    [
        ((1, 3, 4, 4), 'smaller than one patch'),
        ((1, 1, 32, 32), r'\[1, 1, 32, 32\]; accepted: \[B, 3, H, W\]'),
        ((1, 3, 2, 32, 32), r'accepted: \[B, 3, H, W\]'),
    ],
)
def test_bad_images(family, shape, message):
    with pytest.raises(ValueError, match=message):
        tiny(family)(torch.zeros(shape))
