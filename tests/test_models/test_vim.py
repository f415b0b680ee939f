"""Tests specific to Vim; see test_bimamba.py for the rest."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmtransmamba.models import Vim, load_pretrained
from mmtransmamba.models.pos_embed import resize_pos_embed


def test_overlapping_patches_of_the_stride_8_models():
    with torch.device('meta'):
        model = Vim('tiny', stride=8)
    assert model.pos_embed.shape == (1, 730, 192)
    assert model.cls_at(729) == 364

    arch = dict(embed_dims=32, depth=1)
    model = Vim(arch, img_size=24, patch_size=8, stride=4, out_type='featmap')
    assert model.pos_embed.shape == (1, 26, 32)
    assert model(torch.randn(1, 3, 24, 32))[0].shape == (1, 32, 5, 7)
    plain = Vim(arch, img_size=24, patch_size=8)
    report = load_pretrained(model, plain.state_dict())
    assert list(report.converted) == ['pos_embed']


@pytest.mark.parametrize('stride', [0, -8, 4.0])
def test_stride_is_positive(stride):
    with pytest.raises(ValueError, match=f'stride={stride} must be a positive integer'):
        Vim(dict(embed_dims=32, depth=1), img_size=32, stride=stride)


def test_class_token_is_in_the_middle_before_positions_are_added():
    model = Vim(dict(embed_dims=32, depth=1), img_size=32, patch_size=8).eval()
    model.init_weights()
    stream = []
    model.layers[0].register_forward_pre_hook(lambda m, args: stream.append(args))
    images = torch.randn(1, 3, 32, 32)
    model(images)
    ((tokens, grid, at),) = stream
    assert grid == (4, 4) and at == 8
    torch.testing.assert_close(
        tokens[:, 8], (model.cls_token + model.pos_embed[:, 8:9])[:, 0]
    )
    patches, _ = model.patch_embed(images)
    torch.testing.assert_close(tokens[:, 9], patches[:, 8] + model.pos_embed[:, 9])
    torch.testing.assert_close(tokens[:, 7], patches[:, 7] + model.pos_embed[:, 7])


def test_resampling_leaves_the_class_tokens_position_out():
    """A smooth embedding stays smooth although the class token's is an outlier."""
    patches = torch.linspace(0, 1, 4).view(1, 4, 1).expand(1, 4, 4).reshape(1, 16, 1)
    pos_embed = torch.cat(
        (patches[:, :8], torch.full((1, 1, 1), 100.0), patches[:, 8:]), dim=1
    )
    out = resize_pos_embed(pos_embed, (4, 4), (6, 5), Vim.cls_at)
    assert out[0, 15, 0] == 100
    rest = torch.cat((out[:, :15], out[:, 16:]), dim=1).view(1, 1, 6, 5)
    expected = F.interpolate(patches.view(1, 1, 4, 4), size=(6, 5), mode='bicubic')
    torch.testing.assert_close(rest, expected)


def test_initialisation_is_the_official_one():
    torch.manual_seed(0)
    model = Vim(dict(embed_dims=192, depth=2))
    model.init_weights()
    # inverse softplus of the step sizes 0.001 and 0.1
    low, high = math.log(math.expm1(1e-3)), math.log(math.expm1(1e-1))
    assert -6.92 < low < -6.9 and -2.3 < high < -2.2
    for layer in model.layers:
        mixer = layer.mixer
        bias = mixer.dt_proj.bias
        assert low - 1e-3 <= bias.min() < -6.7 and -2.5 < bias.max() <= high + 1e-3
        dt = F.softplus(bias).log()
        middle = (math.log(1e-3) + math.log(1e-1)) / 2
        assert abs(dt.mean() - middle) < 0.2
        assert not mixer.dt_proj_b.bias.any()
        for weight in (mixer.dt_proj.weight, mixer.dt_proj_b.weight):
            assert 0.95 * 12**-0.5 < weight.abs().max() <= 12**-0.5
        # kaiming uniform: 1 / sqrt(fan_in), then divided by sqrt(depth)
        bound = (384 * 2) ** -0.5
        assert 0.98 * bound < mixer.out_proj.weight.abs().max() <= bound
        bound = 192**-0.5
        assert 0.98 * bound < mixer.in_proj.weight.abs().max() <= bound
        for A_log, D in ((mixer.A_log, mixer.D), (mixer.A_b_log, mixer.D_b)):
            torch.testing.assert_close(A_log.exp()[3], torch.arange(1.0, 17.0))
            assert (D == 1).all()
    conv = model.patch_embed.proj
    assert conv.weight.std().item() == pytest.approx(768**-0.5, rel=0.02)
    assert not conv.bias.any()
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    assert (model.norm_f.weight == 1).all()


def test_initialising_again_gives_the_same_scale():
    model = Vim(dict(embed_dims=64, depth=4), img_size=32)
    scales = []
    for _ in range(2):
        model.reset_parameters()
        scales.append(model.layers[0].mixer.out_proj.weight.std().item())
    assert scales[0] == pytest.approx(scales[1], rel=0.1)
