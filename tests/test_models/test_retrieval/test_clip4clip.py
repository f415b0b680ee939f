"""CLIP4Clip against transformers' CLIP and against its formulas."""

import json

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from tiny_retrievers import CLIP, EOS, TEACHER, captions, training_batch

from mmtransmamba.models import CheckpointError
from mmtransmamba.models.retrieval import CLIP4Clip
from mmtransmamba.registry import MODELS


@pytest.fixture
def folder(tmp_path):
    """A CLIP as transformers saves it, and the model in memory."""
    torch.manual_seed(3)
    model = transformers.CLIPModel(transformers.CLIPConfig(**CLIP)).eval()
    with torch.no_grad():
        model.logit_scale.fill_(3.5)
    model.save_pretrained(tmp_path)
    return tmp_path, model


def pooled(output):
    """Features as transformers returns them, before version 5 as a tensor."""
    return getattr(output, 'pooler_output', output)


def random_video(count=2, frames=3, size=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, frames, size, size, generator=generator)


@torch.no_grad()
def test_features_are_clips_own(folder):
    path, clip = folder
    model = CLIP4Clip(str(path)).eval()
    video = random_video()
    frames = [
        F.normalize(pooled(clip.get_image_features(video[:, :, t])), dim=-1)
        for t in range(3)
    ]
    expected = F.normalize(torch.stack(frames).mean(0), dim=-1)
    torch.testing.assert_close(model.encode_video(video), expected)
    text = captions(4)
    expected = F.normalize(pooled(clip.get_text_features(**text)), dim=-1)
    torch.testing.assert_close(model.encode_text(**text), expected)


@torch.no_grad()
def test_a_single_frame_gives_clips_logits(folder):
    path, clip = folder
    model = CLIP4Clip(str(path)).eval()
    image, text = random_video(frames=1), captions(2)
    expected = clip(pixel_values=image[:, :, 0], **text)
    pairs = model.embed_pairs(image, text)
    text_to_video, video_to_text = pairs.logits()
    torch.testing.assert_close(text_to_video, expected.logits_per_text)
    torch.testing.assert_close(video_to_text, expected.logits_per_image)
    assert float(pairs.scale) == pytest.approx(float(clip.logit_scale.exp()))


@torch.no_grad()
def test_frames_of_another_size(folder):
    path, clip = folder
    model = CLIP4Clip(str(path)).eval()
    video = random_video(frames=1, size=48)
    expected = pooled(
        clip.get_image_features(video[:, :, 0], interpolate_pos_encoding=True)
    )
    torch.testing.assert_close(model.encode_video(video), F.normalize(expected, dim=-1))


@pytest.mark.parametrize('aggregation', ['mean', 'transformer'])
@torch.no_grad()
def test_masked_frames_do_not_matter(aggregation):
    torch.manual_seed(0)
    model = MODELS.build(TEACHER | dict(aggregation=aggregation)).eval()
    video = random_video(frames=4)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    masked = model.encode_video(video, mask)
    short = model.encode_video(video[:1, :, :2])
    torch.testing.assert_close(masked[:1], short)
    torch.testing.assert_close(masked[1:], model.encode_video(video[1:]))
    assert not torch.allclose(masked, model.encode_video(video))


class TestSequentialTransformer:
    """The head of CLIP4Clip that looks at all frames."""

    @torch.no_grad()
    def test_layers_are_those_of_the_text_tower(self, folder):
        path, clip = folder
        temporal = dict(num_layers=2, head_dim=8)
        model = CLIP4Clip(str(path), 'transformer', temporal).eval()
        frames = torch.randn(2, 4, 16)
        positions = clip.text_model.embeddings.position_embedding.weight
        x = frames + positions[:4]
        for layer in clip.text_model.encoder.layers:
            x = layer(x, None)
            x = x[0] if isinstance(x, tuple) else x
        torch.testing.assert_close(model.temporal(frames), x + frames)

    @torch.no_grad()
    def test_order_of_frames_matters_only_to_it(self):
        torch.manual_seed(0)
        video = random_video(frames=4)
        changed = {}
        for aggregation in ('mean', 'transformer'):
            model = MODELS.build(TEACHER | dict(aggregation=aggregation)).eval()
            difference = model.encode_video(video) - model.encode_video(video.flip(2))
            changed[aggregation] = float(difference.abs().max())
        assert changed['mean'] < 1e-6 < 1e-4 < changed['transformer']

    def test_another_width_starts_at_random(self, caplog):
        wide = CLIP | dict(projection_dim=24)
        model = MODELS.build(TEACHER | dict(clip=wide, aggregation='transformer'))
        assert model.encode_video(random_video()).shape == (2, 24)

    @pytest.mark.parametrize(
        'temporal, message',
        [
            (dict(num_layers=0), 'num_layers=0.* must be positive'),
            (dict(max_frames=0), 'max_frames=0.* must be positive'),
            (dict(head_dim=3), 'head_dim=3 does not divide .* 16'),
        ],
    )
    def test_bad_settings(self, temporal, message):
        with pytest.raises(ValueError, match=message):
            CLIP4Clip(CLIP, 'transformer', temporal)

    def test_too_many_frames_are_refused(self):
        temporal = dict(max_frames=2)
        model = MODELS.build(
            TEACHER | dict(aggregation='transformer', temporal=temporal)
        )
        with pytest.raises(ValueError, match='3 frames has more than the 2 positions'):
            model.encode_video(random_video())


@pytest.mark.parametrize('aggregation', ['mean', 'transformer'])
def test_a_training_step_reaches_every_parameter(aggregation):
    torch.manual_seed(0)
    model = MODELS.build(TEACHER | dict(aggregation=aggregation))
    model.init_weights()
    data = model.data_preprocessor(training_batch(), True)
    losses = model(**data, mode='loss')
    total, log = model.parse_losses(losses)
    total.backward()
    # Positions beyond the captions and frames have a gradient of zero.
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert total.isfinite() and float(log['logit_scale']) == pytest.approx(14.285, 1e-3)


def test_frozen_text_has_no_gradient_and_stays_in_eval():
    model = MODELS.build(TEACHER | dict(frozen_text=True)).train()
    assert not model.text_encoder.training and model.frame_encoder.training
    data = model.data_preprocessor(training_batch(), True)
    model(**data, mode='loss')['loss'].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith('text_encoder.'), name


@torch.no_grad()
def test_prediction_embeds_all_captions_of_a_video():
    model = MODELS.build(TEACHER).eval()
    batch = training_batch(2)
    own = [captions(1, length=5, seed=5), captions(3, length=7, seed=6)]
    data = model.data_preprocessor(
        dict(video=batch['video'], video_id=batch['video_id'], captions=own)
    )
    outputs = model(**data, mode='predict')
    assert [o['video_id'] for o in outputs] == ['video0', 'video1']
    videos = model(data['inputs'])
    for output, video, caption in zip(outputs, videos, own, strict=True):
        torch.testing.assert_close(output['video_feat'], video)
        torch.testing.assert_close(output['text_feat'], model.encode_text(**caption))


@torch.no_grad()
def test_prediction_of_a_training_batch():
    model = MODELS.build(TEACHER).eval()
    data = model.data_preprocessor(training_batch(3))
    outputs = model(**data, mode='predict')
    texts = model.encode_text(*(data['data_samples'][k] for k in captions(1)))
    torch.testing.assert_close(torch.cat([o['text_feat'] for o in outputs]), texts)


def test_init_weights_leaves_clip_alone(folder):
    path, clip = folder
    model = CLIP4Clip(str(path), 'transformer')
    before = {name: p.clone() for name, p in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_weights_of_half_precision_become_float32(folder):
    path, clip = folder
    clip.half().save_pretrained(path)
    model = CLIP4Clip(str(path))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


class TestRefusals:
    """A model that is not there, or not whole."""

    def test_no_folder(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r'clip=.*nowhere.* is not a folder'
        ):
            CLIP4Clip(str(tmp_path / 'nowhere'))

    def test_another_model(self, folder):
        path, _ = folder
        config = json.loads((path / 'config.json').read_text())
        (path / 'config.json').write_text(json.dumps(config | dict(model_type='vit')))
        with pytest.raises(CheckpointError, match="model_type='vit'; accepted: 'clip'"):
            CLIP4Clip(str(path))

    def test_missing_weights(self, folder):
        path, _ = folder
        state = load_file(path / 'model.safetensors')
        del state['visual_projection.weight']
        save_file(state, path / 'model.safetensors', metadata={'format': 'pt'})
        with pytest.raises(
            CheckpointError, match='lacks 1 weights .*visual_projection'
        ):
            CLIP4Clip(str(path))

    def test_weights_of_another_width(self, folder):
        path, _ = folder
        config = json.loads((path / 'config.json').read_text())
        config['projection_dim'] = 8
        (path / 'config.json').write_text(json.dumps(config))
        message = (
            r'2 weights of another .*text_projection.*\[16, 16\] instead of \[8, 16'
        )
        with pytest.raises(CheckpointError, match=message):
            CLIP4Clip(str(path))

    @pytest.mark.parametrize('part', [None, 0.5])
    def test_weights_that_cannot_be_read(self, folder, part):
        path, _ = folder
        weights = path / 'model.safetensors'
        content = weights.read_bytes()
        weights.unlink()
        if part:
            weights.write_bytes(content[: int(part * len(content))])
        with pytest.raises(CheckpointError, match=f'weights in {path} cannot be read'):
            CLIP4Clip(str(path))

    def test_config_that_is_no_json(self, folder):
        path, _ = folder
        (path / 'config.json').write_text('{')
        with pytest.raises(CheckpointError, match='clip=.*is not a valid JSON'):
            CLIP4Clip(str(path))

    @pytest.mark.parametrize(
        'clip, message',
        [
            (None, 'clip=None must be a folder .* or a dict'),
            (CLIP | dict(dim=16), 'clip has dim, which CLIPConfig'),
            (CLIP | dict(text_config=dict(width=9)), 'clip.text_config has width'),
            (CLIP | dict(vision_config=dict(size=9)), 'clip.vision_config has size'),
        ],
    )
    def test_misspelt_configs(self, clip, message):
        with pytest.raises(ValueError, match=message):
            CLIP4Clip(clip)

    def test_unknown_aggregation(self):
        with pytest.raises(ValueError, match="aggregation='max' must be one of mean"):
            CLIP4Clip(CLIP, aggregation='max')

    def test_unknown_mode(self):
        with pytest.raises(ValueError, match="mode='train' must be 'loss'"):
            CLIP4Clip(CLIP)(random_video(), mode='train')

    def test_long_captions(self):
        with pytest.raises(ValueError, match='9 tokens are longer .* takes .8.'):
            CLIP4Clip(CLIP).encode_text(torch.full((1, 9), EOS))

    def test_images(self):
        with pytest.raises(
            ValueError, match=r'must be \[B, 3, T, H, W\], not \[2, 3, 32'
        ):
            CLIP4Clip(CLIP)(random_video()[:, :, 0])

    @pytest.mark.parametrize(
        'samples, message',
        [
            (None, '2 videos must come with one caption each .* none'),
            (dict(captions=[captions(2), captions(1)]), 'none.* unless test_mode=True'),
            (captions(3), 'input_ids of 3'),
        ],
    )
    def test_training_without_a_caption_for_each(self, samples, message):
        with pytest.raises(ValueError, match=message):
            CLIP4Clip(CLIP)(random_video(), samples, mode='loss')
