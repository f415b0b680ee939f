"""The student: inherited weights, frozen and tuned text, what it is checked for."""

import pytest
import torch
import torch.nn.functional as F
from tiny_retrievers import BACKBONE, CLIP, STUDENT, TEACHER, captions, training_batch

from mmtransmamba.models import CheckpointError, VideoMamba
from mmtransmamba.models.backbones.bimamba import BiMambaMixer
from mmtransmamba.registry import MODELS


def build(seed=0, **kwargs):
    torch.manual_seed(seed)
    model = MODELS.build(STUDENT | kwargs)
    model.init_weights()
    return model


def ready(model, batch=None):
    return model.data_preprocessor(batch or training_batch(), True)


@torch.no_grad()
def test_embedding_is_the_projected_class_token():
    model = build().eval()
    inputs = ready(model)['inputs']
    feature = model.backbone(inputs)
    assert feature.shape == (3, 12)
    expected = F.normalize(feature @ model.video_projection.weight.T, dim=-1)
    torch.testing.assert_close(model.encode_video(inputs), expected)
    assert model(inputs).shape == (3, model.dim) == (3, 16)


@torch.no_grad()
def test_embedding_of_patches_is_their_mean():
    model = build(backbone=BACKBONE | dict(out_type='featmap')).eval()
    inputs = ready(model)['inputs']
    feature = model.backbone(inputs)
    assert feature.shape == (3, 12, 4, 2, 2)
    expected = F.normalize(model.video_projection(feature.mean((2, 3, 4))), dim=-1)
    torch.testing.assert_close(model.encode_video(inputs), expected)


@pytest.mark.parametrize('frozen', [True, False])
def test_text_is_frozen_or_tuned(frozen):
    model = build(frozen_text=frozen).train()
    with torch.no_grad():
        model.backbone.cls_token.normal_()
    before = {n: p.clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.5
    )
    model(**ready(model), mode='loss')['loss'].backward()
    optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert any(n.startswith('text_encoder.') for n in changed) != frozen
    assert {'contrast.log_scale', 'video_projection.weight'} <= changed
    assert any(n.startswith('backbone.layers.0.mixer.A_log') for n in changed)
    assert model.text_encoder.training != frozen


@pytest.mark.parametrize('frames', [1, 2, 4])
def test_ssm_parameters_are_inherited_from_images_and_videos(frames, tmp_path):
    torch.manual_seed(5)
    source = VideoMamba(
        **{k: v for k, v in BACKBONE.items() if k != 'type'} | dict(num_frames=frames)
    )
    source.init_weights()
    file = tmp_path / 'videomamba.pth'
    # The released checkpoint of images has this container, and a head.
    torch.save(
        dict(model=source.state_dict() | {'head.weight': torch.ones(5, 12)}), file
    )
    pretrained = dict(type='Pretrained', checkpoint=str(file))
    model = build(backbone=BACKBONE | dict(init_cfg=pretrained))
    mixers = [m for m in model.modules() if isinstance(m, BiMambaMixer)]
    sources = [m for m in source.modules() if isinstance(m, BiMambaMixer)]
    for mixer, origin in zip(mixers, sources, strict=True):
        for name, tensor in mixer.state_dict().items():
            assert torch.equal(tensor, origin.state_dict()[name]), name
    scratch = build().backbone.layers[0].mixer.x_proj.weight
    assert not torch.equal(mixers[0].x_proj.weight, scratch)


def test_text_is_taken_from_a_teachers_checkpoint(tmp_path):
    torch.manual_seed(1)
    teacher = MODELS.build(TEACHER)
    file = tmp_path / 'epoch_5.pth'
    torch.save(dict(state_dict=teacher.state_dict(), meta=dict(epoch=5)), file)
    model = build(text_checkpoint=str(file))
    text = captions(3)
    with torch.no_grad():
        expected = teacher.eval().encode_text(**text)
        torch.testing.assert_close(model.eval().encode_text(**text), expected)
        assert not torch.allclose(build().eval().encode_text(**text), expected)


def test_a_checkpoint_without_text_is_refused(tmp_path):
    file = tmp_path / 'backbone.pth'
    torch.save(build().backbone.state_dict(), file)
    with pytest.raises(CheckpointError, match='no tensor whose name starts with "text'):
        build(text_checkpoint=str(file))


def test_a_checkpoint_of_another_text_tower_is_refused(tmp_path):
    file = tmp_path / 'teacher.pth'
    torch.save({'text_encoder.text_projection.weight': torch.zeros(3, 3)}, file)
    with pytest.raises(CheckpointError, match=f"text_checkpoint='{file}': .*not fit"):
        build(text_checkpoint=str(file))


def test_a_folder_gives_the_text_tower_only(tmp_path):
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(2)
    clip = transformers.CLIPModel(transformers.CLIPConfig(**CLIP)).eval()
    clip.save_pretrained(tmp_path)
    model = build(clip=str(tmp_path)).eval()
    text = captions(3)
    with torch.no_grad():
        expected = clip.get_text_features(**text)
        expected = getattr(expected, 'pooler_output', expected)
        torch.testing.assert_close(
            model.encode_text(**text), F.normalize(expected, dim=-1)
        )
    names = [n for n, _ in model.named_parameters() if 'vision' in n]
    assert names == []


def test_activation_checkpointing_gives_the_same_gradients():
    gradients = []
    for with_cp in (False, True):
        model = build(backbone=BACKBONE | dict(with_cp=with_cp))
        model(**ready(model), mode='loss')['loss'].backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_amp_step():
    model = build(frozen_text=False)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model(**ready(model), mode='loss')
    assert losses['loss'].dtype == torch.float32
    losses['loss'].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_image_backbones_are_refused():
    with pytest.raises(ValueError, match='VideoMamba is one of images; accepted'):
        build(backbone=BACKBONE | dict(num_frames=1))


def test_features_of_several_blocks_are_refused():
    with pytest.raises(ValueError, match=r'out_indices=\(0, 1\) .* one block'):
        build(backbone=BACKBONE | dict(out_indices=(0, 1)))


def test_masked_frames_are_refused():
    model = build()
    batch = training_batch() | dict(frame_mask=torch.ones(3, 4))
    assert model(**ready(model, batch), mode='loss')['loss'].isfinite()
    batch['frame_mask'][1, 3] = 0
    with pytest.raises(ValueError, match='frame_mask excludes frames'):
        model(**ready(model, batch), mode='loss')
