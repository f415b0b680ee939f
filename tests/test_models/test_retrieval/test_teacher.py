"""CLIP4Clip as teacher: the tokens of its frames, and its embeddings of pairs."""

import pytest
import torch
from tiny_retrievers import TEACHER, captions, training_batch

from mmtransmamba.models import CheckpointError
from mmtransmamba.models.retrieval import CLIP4ClipTeacher
from mmtransmamba.registry import MODELS


def build(aggregation='mean', **kwargs):
    torch.manual_seed(0)
    kwargs.setdefault('checkpoint', 'random')
    return CLIP4ClipTeacher(TEACHER | dict(aggregation=aggregation), **kwargs)


def videos(frames=3, size=32):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, frames, size, size, generator=generator) * 255


@torch.no_grad()
def test_layers_are_the_frames_tokens_one_after_the_other():
    teacher = build()
    assert teacher.num_layers == 3
    assert teacher.layer_dims == (24,) * 3 and teacher.feature_dim == 16
    video = videos()
    output = teacher(video)
    tower = teacher.model.frame_encoder.vision_model
    for t in range(3):
        frame = (video[:, :, t] - teacher.mean) / teacher.std
        states = tower(frame, output_hidden_states=True).hidden_states
        for layer, state in zip(output.layers, states[1:], strict=True):
            assert layer.grid == (3, 4, 4)
            own = layer.tokens.unflatten(1, (3, 16))[:, t]
            torch.testing.assert_close(own, state[:, 1:])


@pytest.mark.parametrize('aggregation', ['mean', 'transformer'])
@torch.no_grad()
def test_embeddings_and_scale_are_the_models(aggregation):
    teacher = build(aggregation)
    model = teacher.model
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    samples = captions(2) | dict(frame_mask=mask)
    raw = videos()
    data = model.data_preprocessor(dict(video=raw) | samples)
    expected = model.embed_pairs(data['inputs'], data['data_samples'])
    output = teacher(raw, samples)
    torch.testing.assert_close(output.pairs.video, expected.video)
    torch.testing.assert_close(output.pairs.text, expected.text)
    torch.testing.assert_close(output.pairs.scale, expected.scale)
    assert output.feature is output.pairs.video and output.logits is None


def test_images_are_videos_of_one_frame_and_need_no_captions():
    teacher = build()
    video = videos(frames=1)
    output = teacher(video[:, :, 0])
    assert output.pairs is None and output.layers[0].grid == (1, 4, 4)
    assert torch.equal(output.feature, teacher(video).feature)


def test_videos_are_resized_on_request():
    teacher = build(input_size=16)
    assert teacher(videos()).layers[0].grid == (3, 2, 2)
    assert build()(videos(size=48)).layers[0].grid == (3, 6, 6)


def test_it_is_frozen_and_stays_in_eval():
    teacher = build('transformer').train()
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    output = teacher(videos(), captions(2))
    assert not output.pairs.text.requires_grad


def test_bfloat16_is_near_float32():
    samples = captions(2)
    full = build('transformer')(videos(), samples)
    half = build('transformer', dtype='bfloat16')(videos(), samples)
    assert half.pairs.text.dtype == half.layers[0].tokens.dtype == torch.float32
    for a, b in ((half.feature, full.feature), (half.pairs.text, full.pairs.text)):
        similarity = torch.cosine_similarity(a, b)
        assert similarity.min() > 0.98 and not torch.equal(a, b)


def test_checkpoint_of_a_training_run(tmp_path):
    torch.manual_seed(4)
    trained = MODELS.build(TEACHER)
    file = tmp_path / 'epoch_5.pth'
    torch.save(dict(state_dict=trained.state_dict(), meta=dict(epoch=5)), file)
    teacher = build(checkpoint=file)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(teacher.model.state_dict()[name], tensor), name
    state = {k: v for k, v in trained.state_dict().items() if 'post_lay' not in k}
    torch.save(state, file)
    with pytest.raises(CheckpointError, match='2 missing in the file'):
        build(checkpoint=file)


def test_vision_tower_has_the_names_of_a_vit():
    teacher = build()
    state = teacher.canonical_state_dict()
    tower = teacher.model.frame_encoder.vision_model
    assert torch.equal(
        state['blocks.2.mlp.fc1.weight'], tower.encoder.layers[2].mlp.fc1.weight
    )
    assert state['pos_embed'].shape == (1, 17, 24)


def test_another_model_is_refused():
    with pytest.raises(ValueError, match='model is Linear; accepted: CLIP4Clip'):
        CLIP4ClipTeacher(torch.nn.Linear(1, 1))


def test_batch_of_the_dataloader():
    batch = training_batch(2)
    video = batch.pop('video')
    pairs = build()(video, batch).pairs
    assert pairs.video.shape == pairs.text.shape == (2, 16)


def test_without_weights_it_is_refused():
    with pytest.raises(
        ValueError, match="Give checkpoint=FILE, or checkpoint='random'"
    ):
        CLIP4ClipTeacher(TEACHER)
