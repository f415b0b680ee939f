"""A student of four stages, each of its own width and grid, under a plain ViT."""

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
        weighting=dict(type='mmtransmamba.AdaptiveWeighting', hidden_dim=8),
    ),
    projected=dict(type='mmtransmamba.DirectionTerm', feature='projected'),
)
NUM_CLASSES = 5
IMAGE_SIZE = 64  # grids of 16, 8, 4 and 2 tokens; the teacher's of 4


def build(terms, version='v0', num_tokens=None, **backbone):
    torch.manual_seed(0)
    arch = dict(
        embed_dims=8,
        depths=(1, 1, 2, 1),
        drop_path_rate=0.0,
        version=version,
        ssm_ratio=2.0,
        d_state=2,
    )
    teacher = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(
                embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48
            ),
            img_size=IMAGE_SIZE,
            patch_size=16,
        ),
        head=dict(
            type='mmpretrain.VisionTransformerClsHead',
            num_classes=NUM_CLASSES,
            in_channels=24,
        ),
    )
    distiller = MODELS.build(
        dict(
            type='mmtransmamba.MultiDirectionDistiller',
            student=dict(
                type='mmpretrain.ImageClassifier',
                backbone=dict(type='mmtransmamba.VMamba', arch=arch, **backbone),
                neck=dict(type='mmpretrain.GlobalAveragePooling'),
                head=dict(
                    type='mmpretrain.LinearClsHead',
                    num_classes=NUM_CLASSES,
                    in_channels=64,
                ),
            ),
            teacher=dict(
                type='mmtransmamba.MMPretrainTeacher',
                checkpoint='random',
                model=teacher,
                mean=[0.0] * 3,
                std=[1.0] * 3,
            ),
            terms=terms,
            channel_order='rgb',
            teacher_layer='uniform',
            num_tokens=num_tokens,
        )
    )
    distiller.student.backbone.reset_parameters()
    return distiller


def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    return images, [DataSample().set_gt_label(i) for i in range(2)]


def gradients(distiller):
    losses = distiller(*batch(), mode='loss')
    total, _ = distiller.parse_losses(losses)
    total.backward()
    return losses, {name: p.grad for name, p in distiller.named_parameters()}


@pytest.mark.parametrize('version', ['v0', 'v05_noz'])
@pytest.mark.parametrize('num_tokens', [None, 3])
def test_step_reaches_every_parameter(version, num_tokens):
    distiller = build(TERMS, version, num_tokens)
    assert [tap.dim for tap in distiller.recorder.layer_taps] == [8, 16, 32, 32, 64]
    losses, grads = gradients(distiller)
    assert {'loss_task'} | {f'loss_{name}' for name in TERMS} <= set(losses)
    assert all(loss.isfinite() for loss in losses.values())
    for name, grad in grads.items():
        assert grad is not None, name
        assert grad.isfinite().all(), name
        if name.startswith('student.'):
            assert grad.any(), name


def test_distillation_alone_reaches_all_stages():
    """Each direction's own parameters learn from the direction term."""
    distiller = build(dict(direction=TERMS['direction']))
    distiller.alpha = 0.0
    _, grads = gradients(distiller)
    for name in ('A_logs', 'Ds', 'x_proj_weight', 'dt_projs_weight', 'dt_projs_bias'):
        for stage, block in ((0, 0), (1, 0), (2, 0), (2, 1), (3, 0)):
            key = f'student.backbone.layers.{stage}.blocks.{block}.op.{name}'
            per_direction = grads[key].reshape(4, -1)
            assert per_direction.any(1).all(), key


def test_teacher_is_resampled_to_each_stage():
    images, samples = batch()
    distiller = build(dict(layer=TERMS['layer']))
    distiller.alpha, distiller.distill_weight = 0.0, 1.0
    assert distiller.layer_map == [0, 1, 1, 2, 2]
    loss = distiller(images, samples, mode='loss')['loss_layer']

    seen = []
    for tap in distiller.recorder.layer_taps:
        tap.listener = seen.append
    distiller.student(images)
    assert [f.grid for f in seen] == [(16, 16), (8, 8), (4, 4), (4, 4), (2, 2)]
    teacher = distiller.teacher(distiller.teacher_images(images)).layers
    expected = 0
    for feature, layer in zip(seen, distiller.layer_map, strict=True):
        target = F.interpolate(
            teacher[layer].tokens.mT.unflatten(2, (4, 4)),
            size=feature.grid,
            mode='bilinear',
            antialias=True,
        )
        # The aligners start as the identity on the channels both have.
        width = feature.tokens.shape[2]
        student = F.pad(feature.tokens, (0, 24 - width))
        cosine = F.cosine_similarity(student, target.flatten(2).mT, dim=-1)
        expected += (1 - cosine).mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('version', ['v0', 'v05_noz'])
def test_activation_checkpointing_distils_the_same(version):
    (_, plain), (_, recomputed) = (
        gradients(build(TERMS, version, with_cp=with_cp)) for with_cp in (False, True)
    )
    for name, grad in plain.items():
        torch.testing.assert_close(recomputed[name], grad, msg=name)
