# PlainMamba for 8x8 images: 16 tokens, four blocks.
_base_ = './plain_mamba_small.py'

model = dict(
    backbone=dict(
        arch=dict(embed_dims=64),
        img_size=8,
        patch_size=2,
        in_channels=1,
    ),
    head=dict(in_channels=64),
)
