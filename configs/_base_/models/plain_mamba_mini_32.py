# A PlainMamba for 32x32 images that trains on a CPU: 64 tokens, four blocks.
_base_ = './plain_mamba_small.py'

model = dict(
    backbone=dict(arch=dict(embed_dims=48), img_size=32, patch_size=4),
    head=dict(in_channels=48),
)
