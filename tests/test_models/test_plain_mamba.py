"""PlainMamba against the official code's numbers, and as a backbone."""

import pytest
import torch
from golden import Golden

from mmtransmamba.models import (
    CheckpointError,
    PlainMamba,
    load_pretrained,
    read_state_dict,
)
from mmtransmamba.models.taps import DirectionTap, LayerTap
from mmtransmamba.ops.backends import use_backend
from mmtransmamba.registry import MODELS

TINY = dict(embed_dims=32, depth=2, num_convs=1, dwconv_layers=(0,), drop_path_rate=0.0)


def tiny(**kwargs) -> PlainMamba:
    torch.manual_seed(0)
    settings = dict(arch=TINY, img_size=32, patch_size=8) | kwargs
    model = PlainMamba(**settings)
    model.init_weights()
    return model


@pytest.mark.parametrize('name', ['plainmamba_l1', 'plainmamba_l1_192x256'])
def test_equals_official_code(name):
    golden = Golden(name)
    model = PlainMamba('L1', img_size=golden.info['facts']['img_size']).eval()
    report = load_pretrained(model, golden.state_dict())
    assert not (report.missing or report.left_over or report.converted)

    layers = {}
    for i, tap in enumerate(model.layer_taps):
        tap.listener = lambda feature, i=i: layers.update({i: feature.tokens})
    with torch.no_grad():
        tokens = model(golden.images())[0].flatten(2).transpose(1, 2)

    assert golden.error('feat', tokens.mean(1)) < 3e-5
    assert golden.error('feat_rows', tokens[:, golden.info['feat_rows']]) < 3e-5
    for key, layer in golden.info['layers'].items():
        i = int(key.split('_')[1])
        assert golden.error(f'layer_{i}', layers[i].mean(1)) < 1e-4
        assert golden.error(f'rows_{i}', layers[i][:, layer['rows']]) < 1e-4


@pytest.mark.parametrize(
    'arch, params',
    [
        ('L1', 7_358_656),
        ('L2', 25_760_832),
        ('L3', 50_507_456),
        ('T', 4_150_848),
        ('S', 13_746_816),
        ('B', 49_527_552),
    ],
)
def test_parameter_counts(arch, params):
    with torch.device('meta'):
        model = PlainMamba(arch)
    assert sum(p.numel() for p in model.parameters()) == params


@pytest.mark.parametrize('arch', PlainMamba.ARCHS)
def test_every_architecture_runs_forward_and_backward(arch):
    settings = {**PlainMamba.ARCHS[arch], 'depth': 2}
    model = PlainMamba(settings, img_size=32)
    model.init_weights()
    (out,) = model(torch.randn(2, 3, 32, 32))
    assert out.shape == (2, settings['embed_dims'], 2, 2)
    out.square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('arch', PlainMamba.ARCHS)
def test_every_architecture_on_both_kernels(arch):
    settings = {**PlainMamba.ARCHS[arch], 'depth': 2, 'drop_path_rate': 0.0}
    images = torch.randn(1, 3, 24, 16)
    direction = torch.randn(1, settings['embed_dims'], 3, 2)
    outs, grads = [], []
    for backend in ('reference', 'native'):
        model = tiny(arch=settings)
        with use_backend(backend):
            (out,) = model(images)
            (out * direction).sum().backward()
        outs.append(out)
        grads.append({n: p.grad for n, p in model.named_parameters()})
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-5)
    for name, grad in grads[0].items():
        error = (grads[1][name] - grad).abs().max()
        assert error < 1e-4 * grad.abs().max(), name


@pytest.mark.parametrize('size', [(32, 32), (40, 64), (8, 8), (35, 50)])
def test_any_image_size(size):
    out = tiny().eval()(torch.randn(1, 3, *size))[0]
    assert out.shape[:2] == (1, 32)
    assert out.isfinite().all()


def test_out_indices_and_final_norm():
    model = tiny(out_indices=(0, -1)).eval()
    first, last = model(torch.randn(1, 3, 32, 32))
    assert first.shape == last.shape == (1, 32, 4, 4)
    assert last.mean(1).abs().max() < 1e-5  # ln1 leaves no mean over channels
    assert first.mean(1).abs().max() > 1e-3


def test_activation_checkpointing_has_the_same_gradient_and_statistics():
    images = torch.randn(2, 3, 32, 32)
    grads, statistics = [], []
    for with_cp in (False, True):
        model = tiny(with_cp=with_cp)
        model(images)[0].square().sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
        statistics.append(dict(model.layers[0].dw[1].named_buffers()))
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)
    # A recomputed BatchNorm would have counted the batch twice.
    assert statistics[1]['num_batches_tracked'] == 1
    for name, value in statistics[0].items():
        assert torch.equal(statistics[1][name], value), name


def test_activation_checkpointing_recomputes_the_mixers():
    model, calls = tiny(with_cp=True), []
    for layer in model.layers:
        layer.mamba.register_forward_pre_hook(lambda *_: calls.append(0))
    model(torch.randn(2, 3, 32, 32))[0].sum().backward()
    assert len(calls) == 2 * model.depth


def test_drop_path_skips_blocks_in_training_only():
    arch = {**TINY, 'dwconv_layers': ()}
    model = tiny(arch=arch, drop_path_rate=1.0)  # the last block always dropped
    images = torch.randn(2, 3, 32, 32)
    tokens = []
    for tap in model.layer_taps:
        tap.listener = lambda feature: tokens.append(feature.tokens)
    model.train()(images)
    assert torch.equal(tokens[0], tokens[1])
    tokens.clear()
    model.eval()(images)
    assert not torch.equal(tokens[0], tokens[1])


def test_classifier_with_official_container(tmp_path):
    import mmpretrain.models  # noqa: F401

    def build(img_size):
        return MODELS.build(
            dict(
                type='mmpretrain.ImageClassifier',
                backbone=dict(
                    type='mmtransmamba.PlainMamba',
                    arch=TINY,
                    img_size=img_size,
                    patch_size=8,
                ),
                neck=dict(type='mmpretrain.GlobalAveragePooling'),
                head=dict(
                    type='mmpretrain.LinearClsHead', num_classes=5, in_channels=32
                ),
            )
        )

    model = build(32).eval()
    assert model.get_layer_depth('backbone.layers.1.norm.weight') == (2, 4)
    assert model.get_layer_depth('backbone.pos_embed') == (0, 4)
    assert model.get_layer_depth('head.fc.weight') == (3, 4)

    path = tmp_path / 'official.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
    same = build(32).eval()
    load_pretrained(same, path)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(same(images), model(images))

    larger = build(64)
    report = load_pretrained(larger, path)
    assert list(report.converted) == ['backbone.pos_embed']
    backbone = tiny(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    assert torch.equal(backbone.ln1.weight, model.backbone.ln1.weight)
    assert torch.equal(
        backbone.layers[1].mamba.in_proj.weight,
        model.backbone.layers[1].mamba.in_proj.weight,
    )


def test_autocast_step_is_finite_and_keeps_the_stream_in_float32():
    model = tiny()
    assert model.layers[0].dw is not None
    streams = []
    for layer in model.layers:
        layer.register_forward_hook(lambda m, a, out: streams.append(out.dtype))
    images = torch.randn(2, 3, 32, 32)
    exact = model(images)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        (out,) = model(images)
    out.float().square().mean().backward()
    assert set(streams) == {torch.float32}
    assert all(p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.1)


def test_half_and_double_models():
    images = torch.randn(1, 3, 32, 32)
    exact = tiny().double()(images.double())[0]
    assert exact.dtype == torch.float64
    half = tiny().bfloat16()(images.bfloat16())[0]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), exact, rtol=0.1, atol=0.1)
    single = tiny()(images)[0]
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-5)


def test_no_weight_decay_names_exist():
    model = tiny()
    names = model.no_weight_decay()
    assert names < {n for n, _ in model.named_parameters()}
    assert {'pos_embed', 'layers.1.mamba.A_log', 'layers.0.mamba.D'} < names


def test_direction_taps_sum_to_the_mixer_output():
    model = tiny()
    mixer, tap = model.layers[1].mamba, model.layers[1].mamba.direction_tap
    tokens = torch.randn(2, 12, 32)
    seen = []
    tap.listener = seen.append
    tap.select = lambda scan_order: torch.arange(12).expand(4, 12)
    out = mixer(tokens, (3, 4))
    (feature,) = seen
    total = torch.zeros(2, 12, 32)
    for k, index in enumerate(feature.token_index):
        total[:, index] += feature.project(feature.values)[:, k]
    torch.testing.assert_close(out, total + mixer.out_proj.bias)


def test_closed_taps_hear_nothing():
    model = tiny()
    assert sum(isinstance(m, LayerTap) for m in model.modules()) == 2
    taps = [m for m in model.modules() if isinstance(m, DirectionTap)]
    assert len(taps) == 2
    assert all(t.steps(torch.zeros(4, 1, dtype=torch.long)) is None for t in taps)


def test_corrected_permutation_is_another_function():
    images = torch.randn(1, 3, 32, 32)
    official, corrected = tiny().eval(), tiny(permute_params=True).eval()
    corrected.load_state_dict(official.state_dict())
    assert not torch.allclose(official(images)[0], corrected(images)[0])


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch='XL'), "unknown arch 'XL', choose one of L1, L2"),
        (dict(arch=dict(embed_dims=8, dim=3)), 'unknown: dim; missing: depth'),
        (dict(patch_size=7), 'patch_size=7 must be a multiple of 2'),
        (dict(out_indices=5), r'out_indices=\(5,\) must lie in \[-2, 1\]'),
        (dict(arch=3), 'PlainMamba: arch=3 must be one of L1, L2, .* or a dict'),
        (dict(arch={**TINY, 'depth': 0}), 'depth=0 must be a positive integer'),
        (dict(patch_size=0), 'patch_size=0 must be a positive integer'),
        (dict(in_channels=0), 'in_channels=0 must be a positive integer'),
        (dict(drop_path_rate=2), r'drop_path_rate=2 must lie in \[0, 1\]'),
        (dict(img_size=(32, 32, 3)), r'img_size=\(32, 32, 3\) must be an integer, or'),
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


class TestLoadPretrained:
    def test_refuses_what_does_not_fit_and_changes_nothing(self):
        model = tiny()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        state = {k: v + 1 for k, v in before.items()}
        del state['ln1.bias']
        state['ln1.wieght'] = torch.ones(32)
        state['layers.0.mamba.D'] = torch.ones(3)
        with pytest.raises(CheckpointError) as error:
            load_pretrained(model, state)
        for part in ('ln1.bias', 'ln1.wieght', 'layers.0.mamba.D', r'(3,)'):
            assert part in str(error.value)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def test_distributed_prefix_and_head_left_over(self, tmp_path):
        model, other = tiny(), tiny()
        state = {f'module.backbone.{k}': v + 1 for k, v in model.state_dict().items()}
        state['module.head.fc.weight'] = torch.zeros(2, 2)
        torch.save({'model': state}, tmp_path / 'ckpt.pth')
        report = load_pretrained(other, tmp_path / 'ckpt.pth')
        assert report.left_over == ['head.fc.weight']
        assert torch.equal(other.ln1.weight, model.ln1.weight + 1)

    def test_checkpoint_of_a_runner(self, tmp_path):
        from mmengine.logging import HistoryBuffer

        history = HistoryBuffer([1.0, 2.0], [1, 1])
        model = tiny()
        content = dict(
            state_dict=model.state_dict(),
            message_hub=dict(log_scalars={'train/loss': history}),
        )
        torch.save(content, tmp_path / 'epoch_1.pth')
        state = read_state_dict(tmp_path / 'epoch_1.pth')
        assert set(state) == set(model.state_dict())

    def test_missing_and_corrupt_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
            load_pretrained(tiny(), tmp_path / 'nowhere.pth')
        (tmp_path / 'bad.pth').write_bytes(b'no checkpoint')
        with pytest.raises(CheckpointError, match=r'bad\.pth" is damaged or no file'):
            load_pretrained(tiny(), tmp_path / 'bad.pth')
        torch.save({'epoch': 3}, tmp_path / 'empty.pth')
        with pytest.raises(CheckpointError, match='holds no state dict'):
            load_pretrained(tiny(), tmp_path / 'empty.pth')
