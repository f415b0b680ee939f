"""Distillers of classifiers small enough for tests, and batches for them."""

from __future__ import annotations

import torch
from mmpretrain.structures import DataSample

from mmtransmamba.registry import MODELS

LOGITS = dict(type='mmtransmamba.LogitsTerm')
FEATURE = dict(type='mmtransmamba.FeatureTerm')
LAYER = dict(type='mmtransmamba.LayerTerm')
DIRECTION = dict(type='mmtransmamba.DirectionTerm')
ADAPTIVE = dict(type='mmtransmamba.AdaptiveWeighting', hidden_dim=8)


def student_config(dim=16, depth=2, num_classes=5, **backbone):
    arch = dict(
        embed_dims=dim, depth=depth, num_convs=1, dwconv_layers=(), drop_path_rate=0.0
    )
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='mmtransmamba.PlainMamba', arch=arch, img_size=16, patch_size=4
        )
        | backbone,
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead', num_classes=num_classes, in_channels=dim
        ),
        data_preprocessor=dict(
            type='mmpretrain.ClsDataPreprocessor',
            num_classes=num_classes,
            mean=[120.0, 110.0, 100.0],
            std=[50.0, 60.0, 70.0],
            to_rgb=True,
        ),
    )


def teacher_config(dim=16, depth=2, num_classes=5, patch_size=4):
    return dict(
        type='mmtransmamba.MMPretrainTeacher',
        checkpoint='random',
        model=dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmpretrain.VisionTransformer',
                arch=dict(
                    embed_dims=dim,
                    num_layers=depth,
                    num_heads=2,
                    feedforward_channels=2 * dim,
                ),
                img_size=16,
                patch_size=patch_size,
            ),
            head=dict(
                type='mmpretrain.VisionTransformerClsHead',
                num_classes=num_classes,
                in_channels=dim,
            ),
        ),
        mean=[127.5] * 3,
        std=[127.5] * 3,
    )


def build(terms, student=None, teacher=None, **kwargs):
    torch.manual_seed(0)
    distiller = MODELS.build(
        dict(
            type='mmtransmamba.MultiDirectionDistiller',
            student=student or student_config(),
            teacher=teacher or teacher_config(),
            terms=terms,
            **kwargs,
        )
    )
    distiller.student.backbone.init_weights()
    return distiller


def batch(size=3, num_classes=5):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(size, 3, 16, 16, generator=generator)
    samples = [DataSample().set_gt_label(i % num_classes) for i in range(size)]
    return inputs, samples
