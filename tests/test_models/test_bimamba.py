"""Common behaviour of Vim and VideoMamba, tested on both."""

import pytest
import torch

from mmtransmamba.models import VideoMamba, Vim, load_pretrained
from mmtransmamba.models.mixers import BiMambaMixer

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


def official(family, container=None, prefix='', **kwargs):
    """A state dict as released, with a head of five classes, and its model."""
    model = tiny(family, **kwargs).eval()
    head = torch.nn.Linear(32, 5)
    state = model.state_dict()
    state |= {f'head.{k}': v.clone() for k, v in head.state_dict().items()}
    state = {prefix + k: v for k, v in state.items()}
    return model, head, {container: state} if container else state


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


class TestLoading:
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
@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(out_type='raw'), "out_type='raw' must be one of cls_token, featmap"),
    ],
)
def test_bad_settings(family, kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny(family, **kwargs)
