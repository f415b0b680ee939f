# VRWKV-T; S differs in `arch`, which implies stochastic depth of 0.3, and in
# `in_channels`.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmtransmamba.VRWKV', arch='tiny', img_size=224),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=192,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(
        augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    ),
)
