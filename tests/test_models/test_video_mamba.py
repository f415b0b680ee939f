"""Tests specific to VideoMamba; see test_bimamba.py for the rest."""

import pytest
import torch
import torch.nn.functional as F

from mmtransmamba.models import CheckpointError, VideoMamba, load_pretrained
from mmtransmamba.registry import MODELS

TINY = dict(embed_dims=32, depth=2)


def tiny(**kwargs):
    torch.manual_seed(0)
    settings = dict(arch=TINY, img_size=16, patch_size=8) | kwargs
    model = VideoMamba(**settings)
    model.init_weights()
    return model


def video(frames=4, size=(16, 16), batch=2):
    return torch.randn(batch, 3, frames, *size)


@pytest.mark.parametrize('tubelet_size', [1, 2])
def test_every_parameter_of_a_video_model_trains(tubelet_size):
    model = tiny(num_frames=4, tubelet_size=tubelet_size, out_type='featmap')
    out = model(video())
    assert out.shape == (2, 32, 4 // tubelet_size, 2, 2)
    out.square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without
    assert model.temporal_pos_embedding.grad.any()


def test_sequence_is_class_token_then_frame_after_frame():
    model = tiny(num_frames=4).eval()
    torch.nn.init.normal_(model.temporal_pos_embedding)
    stream = []
    model.layers[0].register_forward_pre_hook(lambda m, args: stream.append(args))
    clip = video()
    model(clip)
    ((tokens, grid, at),) = stream
    assert grid == (4, 2, 2) and at == 0
    pos, temporal = model.pos_embed, model.temporal_pos_embedding
    torch.testing.assert_close(
        tokens[:, 0], (model.cls_token + pos[:, :1])[:, 0].expand(2, -1)
    )
    for t in range(4):
        frame = F.conv2d(
            clip[:, :, t],
            model.patch_embed.proj.weight[:, :, 0],
            model.patch_embed.proj.bias,
            stride=8,
        )
        expected = frame.flatten(2).mT + pos[:, 1:] + temporal[:, t : t + 1]
        torch.testing.assert_close(tokens[:, 1 + 4 * t : 5 + 4 * t], expected)


@pytest.mark.parametrize('frames', [1, 3, 8, 64])
@pytest.mark.parametrize('size', [(16, 16), (24, 40)])
def test_any_number_of_frames_and_resolution(frames, size):
    model = tiny(num_frames=8, out_type='featmap').eval()
    torch.nn.init.normal_(model.temporal_pos_embedding)
    with torch.no_grad():
        out = model(video(frames, size, batch=1))
    assert out.shape == (1, 32, frames, size[0] // 8, size[1] // 8)
    assert out.isfinite().all()


def test_temporal_embedding_is_resampled_linearly():
    model = tiny(num_frames=4)
    with torch.no_grad():
        model.temporal_pos_embedding.copy_(torch.arange(4.0).view(1, 4, 1))
    positions = model._positions((8, 2, 2)) - model._positions((1, 2, 2))[:, :1]
    torch.testing.assert_close(positions[:, 0], torch.zeros(1, 32))
    base = model.pos_embed[:, 1] - model.pos_embed[:, 0]
    of_frames = (positions[:, 1::4] - base)[0, :, 0]
    expected = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    torch.testing.assert_close(of_frames, expected, atol=1e-5, rtol=0)


class TestInflation:
    @pytest.mark.parametrize('tubelet_size', [1, 2, 3])
    def test_image_weights_make_a_video_model(self, tubelet_size, tmp_path):
        image = tiny()
        state = image.state_dict() | {'head.weight': torch.zeros(1000, 32)}
        torch.save({'model': state}, tmp_path / 'image.pth')
        model = tiny(num_frames=6, tubelet_size=tubelet_size).eval()
        report = load_pretrained(model, tmp_path / 'image.pth')
        assert report.missing == ['temporal_pos_embedding']
        assert list(report.converted) == ['patch_embed.proj.weight']
        assert report.left_over == ['head.weight']
        assert not model.temporal_pos_embedding.any()

        weight = model.patch_embed.proj.weight
        middle = tubelet_size // 2
        assert torch.equal(weight[:, :, middle], image.patch_embed.proj.weight)
        assert weight.count_nonzero() == image.patch_embed.proj.weight.count_nonzero()
        # a still image is tokenised as the image model does it
        still = torch.randn(1, 3, 16, 16)
        tokens, grid = model.patch_embed(still.unsqueeze(2).expand(-1, -1, 6, -1, -1))
        assert grid[0] == 6 // tubelet_size
        expected, _ = image.patch_embed(still)
        torch.testing.assert_close(tokens[:, :4], expected)

    def test_one_frame_of_an_inflated_model_is_the_image_model(self):
        image = tiny().eval()
        model = tiny(num_frames=8).eval()
        load_pretrained(model, image.state_dict())
        still = torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(model(still.unsqueeze(2)), image(still)[0])

    def test_flat_video_checkpoint_of_another_length_and_grid(self, tmp_path):
        source = tiny(num_frames=4)
        torch.nn.init.normal_(source.temporal_pos_embedding)
        torch.save(source.state_dict(), tmp_path / 'video.pth')
        model = tiny(
            num_frames=8,
            img_size=(16, 32),
            init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'video.pth')),
        )
        report = load_pretrained(model, tmp_path / 'video.pth')
        assert set(report.converted) == {'temporal_pos_embedding', 'pos_embed'}
        assert not report.missing
        expected = F.interpolate(
            source.temporal_pos_embedding.mT, size=8, mode='linear'
        ).mT
        torch.testing.assert_close(model.temporal_pos_embedding, expected)

    def test_video_weights_do_not_fit_an_image_model(self):
        with pytest.raises(CheckpointError, match='temporal_pos_embedding'):
            load_pretrained(tiny(), tiny(num_frames=4).state_dict())


def recogniser(head, frames=4, **backbone):
    import mmaction.models  # noqa: F401

    return MODELS.build(
        dict(
            type='mmaction.Recognizer3D',
            backbone=dict(
                type='mmtransmamba.VideoMamba',
                arch=TINY,
                img_size=16,
                patch_size=8,
                num_frames=frames,
                **backbone,
            ),
            cls_head=dict(num_classes=5, in_channels=32, average_clips='prob', **head),
            data_preprocessor=dict(
                type='mmaction.ActionDataPreprocessor', format_shape='NCTHW'
            ),
        )
    )


@pytest.mark.parametrize(
    'head, out_type',
    [
        (dict(type='mmaction.TimeSformerHead'), 'cls_token'),
        (dict(type='mmaction.I3DHead'), 'featmap'),
    ],
)
def test_mmaction_recogniser(head, out_type):
    from mmaction.structures import ActionDataSample

    model = recogniser(head, out_type=out_type)
    clips = torch.randn(3, 2, 3, 4, 16, 16)  # two clips of each of three videos
    samples = [ActionDataSample().set_gt_label(i) for i in range(3)]
    losses = model(clips[:, :1], samples, mode='loss')
    losses['loss_cls'].backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in grads.values())

    with torch.no_grad():
        predicted = model.eval()(clips, samples, mode='predict')
        logits = model.cls_head(model.backbone(clips.flatten(0, 1)))
    scores = logits.softmax(1).view(3, 2, 5).mean(1)
    for sample, score in zip(predicted, scores, strict=True):
        torch.testing.assert_close(sample.pred_score, score)


def test_taps_of_a_video_have_frames_in_their_grid():
    model = tiny(num_frames=4)
    seen = []
    model.layer_taps[0].listener = seen.append
    tap = model.layers[0].mixer.direction_tap
    tap.listener, tap.select = seen.append, lambda order: torch.zeros(2, 1).long()
    model(video())
    direction, layer = seen
    assert direction.grid == layer.grid == (4, 2, 2)
    assert direction.token_index.tolist() == [[0], [15]]
    assert layer.tokens.shape == (2, 16, 32)


def test_several_features_of_a_video_come_in_a_tuple():
    outs = tiny(num_frames=4, out_indices=(0, 1))(video())
    assert [out.shape for out in outs] == [(2, 32), (2, 32)]


@pytest.mark.parametrize('frames', [1, 4])
def test_initialisation_is_the_official_one(frames):
    torch.manual_seed(0)
    model = VideoMamba(dict(embed_dims=192, depth=2), num_frames=frames)
    model.init_weights()
    for layer in model.layers:
        mixer = layer.mixer
        assert not mixer.dt_proj.bias.any() and not mixer.dt_proj_b.bias.any()
        for name in ('in_proj', 'x_proj', 'x_proj_b', 'dt_proj', 'dt_proj_b'):
            weight = getattr(mixer, name).weight
            assert weight.std().item() == pytest.approx(0.02, rel=0.05), name
        bound = (384 * 2) ** -0.5
        assert 0.98 * bound < mixer.out_proj.weight.abs().max() <= bound
        torch.testing.assert_close(mixer.A_b_log.exp()[3], torch.arange(1.0, 17.0))
        assert (mixer.D == 1).all() and (mixer.D_b == 1).all()
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.02)
    assert not model.cls_token.any()
    if frames > 1:
        assert not model.temporal_pos_embedding.any()


def test_weight_decay_spares_the_temporal_embedding():
    model = tiny(num_frames=4)
    assert 'temporal_pos_embedding' in model.no_weight_decay()
    assert model.get_layer_depth('temporal_pos_embedding') == (0, 4)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(num_frames=0), 'num_frames=0 must be a positive multiple'),
        (dict(num_frames=8, tubelet_size=3), 'num_frames=8.*tubelet_size=3'),
        (dict(tubelet_size=2), 'num_frames=1.*tubelet_size=2'),
    ],
)
def test_bad_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)


@pytest.mark.parametrize(
    'shape, message',
    [
        ((1, 3, 16, 16), r'accepted: \[B, 3, T, H, W\]'),
        ((1, 3, 1, 16, 16), 'a video of 1 frames is shorter than one token'),
        ((1, 3, 2, 4, 16), 'smaller than one patch'),
    ],
)
def test_bad_videos(shape, message):
    with pytest.raises(ValueError, match=message):
        tiny(num_frames=4, tubelet_size=2)(torch.zeros(shape))
