# A DeiT-like teacher for 8x8 images: 16 patch tokens and a class token, four blocks.
_base_ = './deit_mini_32.py'

model = dict(backbone=dict(img_size=8, patch_size=2, in_channels=1))
