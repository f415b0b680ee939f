# The first six blocks of DeiT-Tiny on 32x32 images: 64 patch tokens and a class token.
_base_ = './deit_mini_32.py'

model = dict(
    backbone=dict(
        arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768)
    ),
    head=dict(in_channels=192),
    train_cfg=dict(_delete_=True),
)
