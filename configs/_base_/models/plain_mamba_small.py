# PlainMamba of four narrow blocks; image sizes, patches and width come with the images.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmtransmamba.PlainMamba',
        arch=dict(
            depth=4,
            num_convs=1,
            dwconv_layers=(),
            drop_path_rate=0.0,
            d_state=8,
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]),
)
