"""Distilling students whose class token stands among the patches."""

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample

from mmtransmamba.registry import MODELS

TERMS = dict(
    logits=dict(type='mmtransmamba.LogitsTerm'),
    feature=dict(type='mmtransmamba.FeatureTerm'),
    layer=dict(type='mmtransmamba.LayerTerm'),
    direction=dict(
        type='mmtransmamba.DirectionTerm',
        feature='projected',
        weighting=dict(type='mmtransmamba.UniformWeighting'),
    ),
)


def build(
    family,
    terms=TERMS,
    teacher_patch=4,
    out_type='cls_token',
    with_cp=False,
    **kwargs,
):
    torch.manual_seed(0)
    normalise = dict(mean=[127.5] * 3, std=[127.5] * 3)
    student = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type=f'mmtransmamba.{family}',
            arch=dict(embed_dims=16, depth=2, d_state=4),
            img_size=16,
            patch_size=4,
            out_type=out_type,
            with_cp=with_cp,
        ),
        neck=None
        if out_type == 'cls_token'
        else dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=16),
        data_preprocessor=dict(
            type='mmpretrain.ClsDataPreprocessor',
            num_classes=5,
            to_rgb=True,
            **normalise,
        ),
    )
    vit = dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
        img_size=16,
        patch_size=teacher_patch,
    )
    head = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=5)
    model = dict(
        type='mmpretrain.ImageClassifier',
        backbone=vit,
        head=head | dict(in_channels=16),
    )
    distiller = MODELS.build(
        dict(
            type='mmtransmamba.MultiDirectionDistiller',
            student=student,
            teacher=dict(
                type='mmtransmamba.MMPretrainTeacher',
                model=model,
                checkpoint='random',
            )
            | normalise,
            terms=terms,
            **kwargs,
        )
    )
    distiller.student.backbone.init_weights()
    return distiller


def batch():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 3, 16, 16, generator=generator)
    return inputs, [DataSample().set_gt_label(i) for i in range(3)]


families = pytest.mark.parametrize('family', ['Vim', 'VideoMamba'])


@families
@pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
@pytest.mark.parametrize('teacher_patch, num_tokens', [(4, None), (4, 5), (8, None)])
def test_a_step_trains_all(family, out_type, teacher_patch, num_tokens):
    distiller = build(
        family, out_type=out_type, teacher_patch=teacher_patch, num_tokens=num_tokens
    )
    total, logs = distiller.parse_losses(distiller(*batch(), mode='loss'))
    total.backward()
    assert {f'loss_{name}' for name in TERMS} < set(logs)
    for name, parameter in distiller.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@families
def test_activation_checkpointing_distils_the_same(family):
    grads = []
    for with_cp in (False, True):
        distiller = build(family, with_cp=with_cp)
        total, _ = distiller.parse_losses(distiller(*batch(), mode='loss'))
        total.backward()
        grads.append({n: p.grad for n, p in distiller.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


@families
def test_layers_and_directions_meet_the_teachers_patch_of_the_same_place(family):
    inputs, samples = batch()
    terms = {name: TERMS[name] for name in ('layer', 'direction')}
    distiller = build(family, terms, alpha=0.0)
    losses = distiller(inputs, samples, mode='loss')

    backbone = distiller.student.backbone
    streams, mixed = [], []
    for layer in backbone.layers:
        layer.register_forward_hook(lambda m, a, out: streams.append(out))
        layer.mixer.register_forward_hook(lambda m, a, out: mixed.append(out))
        tap = layer.mixer.direction_tap
        tap.listener = lambda feature: directions.append(feature)
        tap.select = lambda order: torch.arange(16).expand_as(order)
    directions = []
    with torch.no_grad():
        backbone(inputs)
        teacher = distiller.teacher(distiller.teacher_images(inputs)).layers
    at = backbone.cls_at(16)
    patches = [i for i in range(17) if i != at]

    def distance(a, b):
        return (1 - F.cosine_similarity(a, b, dim=-1)).mean()

    expected_layer = expected_direction = 0
    for stream, mixer, feature, layer in zip(
        streams, mixed, directions, teacher, strict=True
    ):
        expected_layer += distance(stream[:, patches], layer.tokens)
        values = feature.project(feature.values)
        forwards, backwards = values[:, 0], values[:, 1].flip(1)
        torch.testing.assert_close(forwards + backwards, mixer[:, patches])
        expected_direction += distance(forwards, layer.tokens)
        expected_direction += distance(backwards, layer.tokens)
    torch.testing.assert_close(losses['loss_layer'], expected_layer)
    torch.testing.assert_close(losses['loss_direction'], expected_direction)


@families
def test_the_feature_is_the_class_token_after_the_final_norm(family):
    inputs, samples = batch()
    terms = {name: TERMS[name] for name in ('logits', 'feature')}
    distiller = build(family, terms, alpha=0.0)
    losses = distiller(inputs, samples, mode='loss')
    student = distiller.student
    with torch.no_grad():
        (cls,) = student.backbone(inputs)
        teacher = distiller.teacher(distiller.teacher_images(inputs))
        cosine = F.cosine_similarity(cls, teacher.feature, dim=-1)
        kl = F.kl_div(
            student.head((cls,)).log_softmax(1),
            teacher.logits.softmax(1),
            reduction='batchmean',
        )
    assert cls.shape == (3, 16)
    torch.testing.assert_close(losses['loss_feature'], (1 - cosine).mean())
    torch.testing.assert_close(losses['loss_logits'], kl)
