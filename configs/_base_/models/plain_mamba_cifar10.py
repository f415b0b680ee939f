# The student of the study on Imagenette for 32x32 images: 64 tokens.
_base_ = './plain_mamba_imagenette.py'

model = dict(backbone=dict(img_size=32, patch_size=4))
