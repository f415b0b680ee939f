# Vim-T; S differs in `arch`, `drop_path_rate` and `in_channels`. The head reads the
# class token.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmtransmamba.Vim', arch='tiny', img_size=224),
    neck=None,
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
