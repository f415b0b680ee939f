# A PlainMamba of four blocks and 4x4 patches, on 256 tokens an image.
_base_ = ['./_base_/upernet_shapes.py', './_base_/shapes.py']

model = dict(
    backbone=dict(
        type='mmtransmamba.PlainMamba',
        arch=dict(
            embed_dims=48,
            depth=4,
            num_convs=1,
            dwconv_layers=(),
            drop_path_rate=0.0,
            d_state=8,
        ),
        img_size=64,
        patch_size=4,
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(
        type='Feature2Pyramid',
        embed_dim=48,
        rescales=[2, 1, 0.5, 0.25],
        norm_cfg=dict(type='BN'),
    ),
)
