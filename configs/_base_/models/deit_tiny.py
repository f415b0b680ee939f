# DeiT-T, starting from mmpretrain's ImageNet-1k weights.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch='deit-tiny',
        img_size=224,
        patch_size=16,
        init_cfg=dict(
            type='Pretrained',
            prefix='backbone',
            checkpoint='checkpoints/deit-tiny_pt-4xb256_in1k_20220218-13b382a0.pth',
        ),
    ),
    neck=None,
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=1000,
        in_channels=192,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(
        augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    ),
)
