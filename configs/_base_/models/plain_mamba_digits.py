# PlainMamba for 8x8 images: 16 tokens, four blocks.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmtransmamba.PlainMamba',
        arch=dict(
            embed_dims=64,
            depth=4,
            num_convs=1,
            dwconv_layers=(),
            drop_path_rate=0.0,
            d_state=8,
        ),
        img_size=8,
        patch_size=2,
        in_channels=1,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]),
)
