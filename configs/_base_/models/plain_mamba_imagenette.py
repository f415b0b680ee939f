# Half of PMamba-T for 72x72 images: as wide, six blocks, 36 tokens, one convolution
# less in its stem. It trains on one core.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmtransmamba.PlainMamba',
        arch=dict(
            embed_dims=192,
            depth=6,
            num_convs=1,
            dwconv_layers=(),
            drop_path_rate=0.0,
        ),
        img_size=72,
        patch_size=12,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=192,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
