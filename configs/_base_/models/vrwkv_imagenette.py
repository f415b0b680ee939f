# Vision-RWKV-T's width (v4) for 72x72 images: six blocks, 36 tokens.
_base_ = './vrwkv_digits.py'

backbone = dict(
    arch=dict(embed_dims=192, depth=6), img_size=72, patch_size=12, in_channels=3
)
