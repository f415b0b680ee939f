"""VMamba against the official code's numbers, and as a backbone."""

import copy

import pytest
import torch
import torch.nn.functional as F

from mmtransmamba.models import CheckpointError, VMamba, load_pretrained
from mmtransmamba.models.mixers import SS2DMixer
from mmtransmamba.ops import selective_scan_fn
from mmtransmamba.registry import MODELS

V0 = dict(
    embed_dims=16,
    depths=(1, 2, 1, 1),
    drop_path_rate=0.0,
    version='v0',
    ssm_ratio=2.0,
    d_state=4,
)
NOZ = {**V0, 'version': 'v05_noz', 'ssm_ratio': 1.0, 'd_state': 1}
WIDTH = 128  # of the fourth stage

both = pytest.mark.parametrize('arch', [V0, NOZ], ids=['v0', 'v05_noz'])


def tiny(arch=V0, **kwargs):
    torch.manual_seed(0)
    model = VMamba(arch, **kwargs)
    model.reset_parameters()
    return model


def classifier(arch):
    import mmpretrain.models  # noqa: F401

    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmtransmamba.VMamba', arch=arch),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(
                type='mmpretrain.LinearClsHead', num_classes=5, in_channels=WIDTH
            ),
        )
    )


def official(arch, container=None, prefix=''):
    """A checkpoint as released, of a model and a head of five classes."""
    model, head = tiny(arch).eval(), torch.nn.Linear(WIDTH, 5)
    state = model.state_dict()
    state |= {f'classifier.head.{k}': v for k, v in head.state_dict().items()}
    state = {prefix + k: v.clone() for k, v in state.items()}
    return model, head, {container: state} if container else state


def scan_by_rotation(mixer, tokens, grid):
    """The official code's way: permuted copies, one scan of channels in four groups."""
    K, D, R, N = 4, mixer.d_inner, mixer.dt_rank, mixer.d_state
    x = mixer.in_proj(tokens)
    x, z = x.chunk(2, dim=-1) if mixer.gate else (x, None)
    u = F.silu(mixer.conv2d(x.mT.unflatten(2, grid)))
    paths = torch.stack((u.flatten(2), u.mT.flatten(2)), dim=1)
    paths = torch.cat((paths, paths.flip(-1)), dim=1)
    params = torch.einsum('bkdl,kcd->bkcl', paths, mixer.x_proj_weight)
    dt, B, C = params.split((R, N, N), dim=2)
    dt = torch.einsum('bkrl,kdr->bkdl', dt, mixer.dt_projs_weight)
    y = selective_scan_fn(
        paths.flatten(1, 2),
        dt.flatten(1, 2),
        -mixer.A_logs.exp(),
        B,
        C,
        mixer.Ds,
        delta_bias=mixer.dt_projs_bias.flatten(),
        delta_softplus=True,
        backend='reference',
    ).unflatten(1, (K, D))
    y = y[:, :2] + y[:, 2:].flip(-1)
    y = y[:, 0] + y[:, 1].unflatten(2, grid[::-1]).mT.flatten(2)
    y = mixer.out_norm(y.mT)
    return mixer.out_proj(y if z is None else y * F.silu(z))


@pytest.mark.parametrize('gate, d_state', [(True, 4), (False, 1)])
def test_mixer_is_a_scan_of_four_permuted_copies(gate, d_state):
    torch.manual_seed(0)
    mixer = SS2DMixer(32, d_state, expand=1.5, gate=gate, conv_bias=gate)
    tokens = torch.randn(2, 15, 32)
    expected = scan_by_rotation(mixer, tokens, (3, 5))
    torch.testing.assert_close(mixer(tokens, (3, 5)), expected)


@both
@pytest.mark.parametrize('patch_size', [2, 4, 8])
def test_patch_size(arch, patch_size):
    model = tiny(arch, patch_size=patch_size, out_indices=0)
    assert model(torch.randn(1, 3, 32, 48))[0].shape[2:] == (
        32 // patch_size,
        48 // patch_size,
    )


@both
def test_stages_and_final_norm(arch):
    model = tiny(arch, out_indices=(0, 1, 2, -1)).eval()
    seen = []
    for tap in model.layer_taps:
        tap.listener = seen.append
    maps = model(torch.randn(2, 3, 32, 64))
    assert [tuple(m.shape) for m in maps] == [
        (2, 16, 8, 16),
        (2, 32, 4, 8),
        (2, 64, 2, 4),
        (2, 128, 1, 2),
    ]
    assert [f.grid for f in seen] == [(8, 16), (4, 8), (4, 8), (2, 4), (1, 2)]
    last_blocks = [seen[i].tokens for i in (0, 2, 3, 4)]
    for out, tokens in zip(maps[:3], last_blocks[:3], strict=True):
        torch.testing.assert_close(out.flatten(2).mT, tokens)
    normed = model.classifier['norm'](last_blocks[3])
    torch.testing.assert_close(maps[3].flatten(2).mT, normed)


@both
def test_dense_tasks_norm_each_map(arch, tmp_path):
    dense = tiny(arch, out_indices=(0, 2, 3), with_outnorms=True).eval()
    names = {n.split('.')[0] for n in dense.state_dict()}
    assert names == {'patch_embed', 'layers', 'outnorm0', 'outnorm2', 'outnorm3'}
    plain = tiny(arch, out_indices=(0, 2, 3)).eval()
    with torch.no_grad():
        dense.outnorm2.weight.fill_(2)

    _, _, content = official(arch, 'model')
    torch.save(content, tmp_path / 'official.pth')
    for model in (dense, plain):
        report = load_pretrained(model, tmp_path / 'official.pth')
    assert not report.missing
    report = load_pretrained(dense, tmp_path / 'official.pth')
    assert {n.split('.')[0] for n in report.missing} == {
        'outnorm0',
        'outnorm2',
        'outnorm3',
    }
    assert {n.rsplit('.', 1)[0] for n in report.left_over} == {
        'classifier.norm',
        'classifier.head',
    }
    images = torch.randn(1, 3, 64, 64)
    for norm, out, raw in zip((1, 2), dense(images), plain(images), strict=False):
        expected = norm * F.layer_norm(raw.flatten(2).mT, raw.shape[1:2])
        torch.testing.assert_close(out.flatten(2).mT, expected)

    again = VMamba(arch, out_indices=(0, 2, 3), with_outnorms=True).eval()
    detector = {f'backbone.{k}': v for k, v in dense.state_dict().items()}
    assert not load_pretrained(again, detector).missing
    for a, b in zip(again(images), dense(images), strict=True):
        assert torch.equal(a, b)


def test_drop_path_rises_over_all_stages():
    model = VMamba(V0, drop_path_rate=0.4)
    rates = [block.drop_path.p for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize('num_tokens', [12, 5])
@pytest.mark.parametrize('gate', [True, False])
def test_direction_taps_sum_to_the_mixer_output(gate, num_tokens):
    torch.manual_seed(0)
    mixer = SS2DMixer(16, 4, gate=gate)
    torch.nn.init.normal_(mixer.out_norm.weight)
    torch.nn.init.normal_(mixer.out_norm.bias)
    tokens, grid = torch.randn(2, 12, 16), (3, 4)
    chosen = torch.randperm(12)[:num_tokens]
    tap, seen = mixer.direction_tap, []
    tap.listener = seen.append
    tap.select = lambda order: order.argsort(1)[:, chosen]
    out = mixer(tokens, grid)
    (feature,) = seen
    assert feature.values.shape == (2, 4, num_tokens, 32)
    assert all(torch.equal(index, chosen) for index in feature.token_index)

    # The only part that no direction computes: the bias of out_norm, behind the gate.
    constant = mixer.out_norm.bias
    if gate:
        constant = constant * F.silu(mixer.in_proj(tokens[:, chosen])[..., 32:])
    total = feature.project(feature.values).sum(1) + mixer.out_proj(constant)
    torch.testing.assert_close(total, out[:, chosen])
    # The identity holds for all inputs, so for the gradients as well.
    direction = torch.randn_like(total)
    parameters = list(mixer.parameters())
    grads = [
        torch.autograd.grad((value * direction).sum(), parameters, retain_graph=True)
        for value in (total, out[:, chosen])
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@both
def test_initialisation_is_the_official_one(arch):
    model = tiny({**arch, 'embed_dims': 96, 'depths': (2, 1), 'd_state': 8})
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.02), name
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, torch.nn.LayerNorm):
            assert (module.weight == 1).all() and not module.bias.any()
        elif isinstance(module, torch.nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound, name
        elif isinstance(module, SS2DMixer):
            dt = F.softplus(module.dt_projs_bias)
            assert 0.999e-3 <= dt.min() < 1.2e-3 and 0.08 < dt.max() <= 0.1001
            assert abs(dt.log10().mean() + 2) < 0.1
            for weight in (module.x_proj_weight, module.dt_projs_weight):
                bound = weight.shape[2] ** -0.5
                assert 0.98 * bound < weight.abs().max() <= bound, name
            torch.testing.assert_close(module.A_logs.exp()[-1], torch.arange(1.0, 9.0))
            assert (module.Ds == 1).all()


class TestLoading:
    def test_ema_weights_beside_the_others(self, tmp_path):
        model, _, content = official(V0, 'model')
        content['model_ema'] = {k: v + 1 for k, v in content['model'].items()}
        torch.save(content, tmp_path / 'official.pth')
        backbone = VMamba(V0)
        load_pretrained(backbone, tmp_path / 'official.pth', container='model_ema')
        norm = model.classifier['norm'].weight
        assert torch.equal(backbone.classifier['norm'].weight, norm + 1)

    @both
    def test_names_and_shapes_of_older_releases(self, arch, tmp_path):
        model, head, state = official(arch)

        def legacy(name):
            for new, old in {
                'classifier.': '',
                'patch_embed.0.': 'patch_embed.proj.',
                'patch_embed.2.': 'patch_embed.norm.',
                '.norm.': '.ln_1.' if 'blocks' in name else '.norm.',
                '.op.': '.self_attention.',
            }.items():
                name = name.replace(new, old)
            return name

        linear = ('in_proj.weight', 'out_proj.weight', 'fc1.weight', 'fc2.weight')
        old = {
            legacy(k): v[..., None, None] if k.endswith(linear) else v
            for k, v in state.items()
        }
        assert {'norm.weight', 'head.bias', 'patch_embed.proj.bias'} < set(old)
        assert 'layers.1.blocks.1.self_attention.A_logs' in old
        torch.save({'model': old}, tmp_path / 'old.pth')

        backbone = VMamba(arch).eval()
        report = load_pretrained(backbone, tmp_path / 'old.pth')
        assert report.left_over == ['head.weight', 'head.bias']
        assert not report.missing
        assert report.converted['classifier.norm.bias'] == 'named norm.bias'
        in_proj = 'layers.0.blocks.0.op.in_proj.weight'
        assert 'self_attention.in_proj.weight, (' in report.converted[in_proj]
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(backbone(images)[0], model(images)[0])

        whole = classifier(arch).eval()
        assert not load_pretrained(whole, tmp_path / 'old.pth').left_over
        expected = head(model(images)[0].mean((2, 3)))
        torch.testing.assert_close(whole(images), expected)

    def test_refuses_what_does_not_fit_and_changes_nothing(self):
        model = tiny()
        before = copy.deepcopy(model.state_dict())
        _, _, state = official(V0)
        state = {k: v + 1 for k, v in state.items()}
        state['layers.0.blocks.0.op.A_log'] = state.pop('layers.0.blocks.0.op.A_logs')
        state['layers.1.downsample.norm.weight'] = torch.ones(3)
        del state['classifier.norm.weight']
        with pytest.raises(CheckpointError) as error:
            load_pretrained(model, state)
        for part in (
            'missing in the file: layers.0.blocks.0.op.A_logs, classifier.norm.weight',
            'left over in the file: classifier.head.weight, classifier.head.bias, '
            'layers.0.blocks.0.op.A_log;',
            'layers.1.downsample.norm.weight (file (3,), model (128,))',
        ):
            assert part in str(error.value)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def test_one_version_does_not_load_into_the_other(self):
        with pytest.raises(CheckpointError, match=r'mlp\.fc1'):
            load_pretrained(tiny(NOZ), official(V0)[2])


@pytest.mark.parametrize(
    'arch, kwargs, message',
    [
        ({**V0, 'version': 'v1'}, {}, "version='v1' must be one of v0, v05_noz"),
        (NOZ, dict(patch_size=3), 'patch_size=3 must be even in v05_noz'),
    ],
)
def test_bad_settings(arch, kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny(arch, **kwargs)
