# VMamba-T of the first version, the only one with the 15 blocks of TransMamba's
# Table II. Stochastic depth is the official 0.2.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmtransmamba.VMamba', arch='vanilla_tiny'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(
        augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    ),
)
