# A UPerNet for 64x64 images; child configs set the backbone.
norm = dict(type='BN')
loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[127.5, 127.5, 127.5],
        std=[74.0, 74.0, 74.0],
        bgr_to_rgb=True,
        size=(64, 64),
    ),
    decode_head=dict(
        type='UPerHead',
        in_channels=[48, 48, 48, 48],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=32,
        num_classes=5,
        norm_cfg=norm,
        align_corners=False,
        loss_decode=loss,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
