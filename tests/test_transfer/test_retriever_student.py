"""Distilling CLIP4Clip into VideoMamba, for finding videos."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner.checkpoint import get_state_dict
from tiny_retrievers import STUDENT, TEACHER, training_batch
from tiny_teachers import HF_SIZES, NORMALISATION

from mmtransmamba.models import load_pretrained
from mmtransmamba.models.taps import DirectionTap, LayerTap
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.alignment import resample_tokens

ADAPTIVE = dict(type='mmtransmamba.AdaptiveWeighting', hidden_dim=8)
TERMS = dict(
    similarity=dict(type='mmtransmamba.SimilarityTerm', temperature=2.0),
    feature=dict(type='mmtransmamba.FeatureTerm'),
    layer=dict(type='mmtransmamba.LayerTerm'),
    adaptive=dict(type='mmtransmamba.LayerTerm', weighting=ADAPTIVE),
    direction=dict(type='mmtransmamba.DirectionTerm'),
)


def distiller(*names, student=STUDENT, aggregation='mean', **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mmtransmamba.MultiDirectionDistiller',
            student=student,
            teacher=dict(
                type='mmtransmamba.CLIP4ClipTeacher',
                checkpoint='random',
                model=TEACHER | dict(aggregation=aggregation),
            ),
            terms={name: TERMS[name] for name in names or TERMS},
            **kwargs,
        )
    )
    model.init_weights()
    return model


def losses_of(model, batch=None):
    data = model.data_preprocessor(batch or training_batch(), True)
    return data, model(**data, mode='loss')


@pytest.mark.parametrize('num_tokens', [None, 3])
@pytest.mark.parametrize('aggregation', ['mean', 'transformer'])
def test_every_term_trains_the_student(num_tokens, aggregation):
    model = distiller(num_tokens=num_tokens, aggregation=aggregation)
    _, losses = losses_of(model)
    assert {'loss_task'} | {f'loss_{name}' for name in TERMS} <= set(losses)
    assert 'logit_scale' in losses
    total, _ = model.parse_losses(losses)
    total.backward()
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert all('text_encoder' in name for name in without)
    assert all(p.grad is None for p in model.teacher.parameters())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients)


def test_total_is_the_task_and_the_similarities():
    model = distiller('similarity', alpha=0.3)
    data, losses = losses_of(model)
    student = model.student.embed_pairs(data['inputs'], data['data_samples'])
    raw = training_batch()['video'].float()
    teacher = model.teacher(raw, data['data_samples']).pairs
    divergence = 0.0
    for side in ('text', 'video'):
        other = dict(text='video', video='text')[side]
        rows = [
            p.scale * getattr(p, side) @ getattr(p, other).T / 2.0
            for p in (student, teacher)
        ]
        divergence = divergence + F.kl_div(
            rows[0].log_softmax(1), rows[1].softmax(1), reduction='batchmean'
        )
    torch.testing.assert_close(
        losses['loss_similarity'], 0.7 * 2.0**2 * divergence / 2, atol=1e-5, rtol=1e-4
    )
    alone = model.student(**data, mode='loss')['loss']
    torch.testing.assert_close(losses['loss_task'], 0.3 * alone)


def test_a_student_that_agrees_with_the_teacher_has_no_similarity_loss():
    model = distiller('similarity', alpha=0.0)
    data, losses = losses_of(model)
    assert losses['loss_similarity'] > 1e-4
    pairs = model.teacher(training_batch()['video'], data['data_samples']).pairs
    model.student.embed_pairs = lambda *_: copy.copy(pairs)
    _, losses = losses_of(model)
    assert losses['loss_similarity'].abs() < 1e-6


def test_feature_term_compares_embeddings():
    model = distiller('feature', alpha=0.0)
    data, losses = losses_of(model)
    own = model.student(data['inputs'])
    target = model.teacher(training_batch()['video']).feature
    # The aligner starts as the identity.
    torch.testing.assert_close(
        losses['loss_feature'], (1 - F.cosine_similarity(own, target)).mean()
    )


def recorded(model, inputs):
    """Layers and directions of all tokens, read beside the distiller."""
    layers, directions = [], []
    for tap in model.recorder.layer_taps:
        tap.listener = layers.append
    for tap in model.recorder.direction_taps:
        tap.listener = directions.append
        tap.select = lambda order: torch.arange(order.shape[1]).expand_as(order)
    model.student(inputs)
    return layers, directions


def test_layer_term_compares_space_time_tokens_with_frame_tokens():
    model = distiller('layer', alpha=0.0, teacher_layer=[0, 2])
    data, losses = losses_of(model)
    layers, _ = recorded(model, data['inputs'])
    taught = model.teacher(training_batch()['video']).layers
    expected = 0.0
    for feature, index, aligner in zip(
        layers, [0, 2], model.terms['layer'].aligners, strict=True
    ):
        assert feature.grid == (4, 2, 2) and taught[index].grid == (4, 4, 4)
        target = resample_tokens(taught[index].tokens, (4, 4, 4), (4, 2, 2))
        # Each frame of the student is compared with the same frame of the teacher.
        frames = taught[index].tokens.unflatten(1, (4, 16))
        alone = resample_tokens(frames[:, 1], (4, 4), (2, 2))
        torch.testing.assert_close(target.unflatten(1, (4, 4))[:, 1], alone)
        similarity = F.cosine_similarity(aligner(feature.tokens), target, dim=-1)
        expected = expected + (1 - similarity).mean()
    torch.testing.assert_close(losses['loss_layer'], expected)


def test_direction_term_compares_forward_and_backward_scans():
    model = distiller('direction', alpha=0.0)
    data, losses = losses_of(model)
    _, directions = recorded(model, data['inputs'])
    taught = model.teacher(training_batch()['video']).layers[-1]
    target = resample_tokens(taught.tokens, taught.grid, (4, 2, 2))
    expected = 0.0
    for feature, aligner in zip(
        directions, model.terms['direction'].aligners, strict=True
    ):
        forward, backward = feature.token_index
        assert forward.tolist() == list(range(16))
        assert backward.tolist() == list(reversed(range(16)))
        values = aligner(feature.values)
        # The reverse-aware projection starts as the identity.
        for k, index in enumerate((forward, backward)):
            cosine = F.cosine_similarity(values[:, k], target[:, index], dim=-1)
            expected = expected + (1 - cosine).mean()
    torch.testing.assert_close(losses['loss_direction'], expected)


def test_teacher_sees_the_videos_as_they_are():
    model = distiller('similarity')
    batch = training_batch()
    inputs = model.data_preprocessor(batch, True)['inputs']
    assert model.channel_order == 'rgb'
    torch.testing.assert_close(
        model.teacher_images(inputs), batch['video'].float(), atol=1e-3, rtol=0
    )


def test_checkpoint_is_the_plain_students(tmp_path):
    model = distiller(aggregation='transformer')
    state = get_state_dict(model)
    own = {name for name in state if name.startswith('distiller.')}
    assert own and not any('teacher' in k or 'vision_model' in k for k in state)
    file = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=state), file)
    torch.manual_seed(9)
    plain = MODELS.build(STUDENT)
    report = load_pretrained(plain, file)
    assert set(report.left_over) == own and not report.missing
    inputs = model.data_preprocessor(training_batch())['inputs']
    with torch.no_grad():
        expected = model.student.eval()(inputs)
        assert torch.equal(plain.eval()(inputs), expected)


def test_prediction_is_the_students_and_closes_the_taps():
    model = distiller()
    losses_of(model)
    model.eval()
    data = model.data_preprocessor(training_batch())
    mine = model(**data, mode='predict')
    alone = model.student(**data, mode='predict')
    for a, b in zip(mine, alone, strict=True):
        assert torch.equal(a['video_feat'], b['video_feat'])
        assert torch.equal(a['text_feat'], b['text_feat'])
    taps = [m for m in model.modules() if isinstance(m, LayerTap | DirectionTap)]
    assert taps and all(tap.listener is None for tap in taps)


def test_layer_depth_is_the_backbones():
    model = distiller()
    depths = {name: model.get_layer_depth(name) for name, _ in model.named_parameters()}
    assert depths['student.backbone.layers.1.norm.weight'] == (2, 4)
    assert depths['student.video_projection.weight'] == (3, 4)


class TestRefusals:
    """Unsupported pairs are refused with the reason."""

    def test_image_teacher_of_a_retriever(self):
        teacher = dict(
            type='mmtransmamba.TransformersTeacher',
            checkpoint='random',
            model=dict(model_type='clip_vision_model', **HF_SIZES),
            **NORMALISATION,
        )
        with pytest.raises(ValueError, match='must be a CLIP4ClipTeacher, not Transf'):
            MODELS.build(
                dict(
                    type='mmtransmamba.MultiDirectionDistiller',
                    student=STUDENT,
                    teacher=teacher,
                    terms=dict(layer=TERMS['layer']),
                )
            )

    def test_clip4clip_is_no_student(self):
        with pytest.raises(ValueError, match='the student CLIP4Clip must be'):
            distiller('similarity', student=TEACHER)

    def test_similarities_need_a_teacher_that_reads(self):
        term = MODELS.build(TERMS['similarity'])
        pair = type('Pair', (), dict(teacher=torch.nn.Identity()))
        with pytest.raises(ValueError, match='the teacher Identity does not give'):
            term.bind(pair)

    def test_temperature(self):
        with pytest.raises(ValueError, match='temperature=0 must be greater'):
            MODELS.build(TERMS['similarity'] | dict(temperature=0))
