# VMamba-T (tiny_s1l8), pre-trained on ImageNet-1K.
_base_ = './_base_/mask_rcnn_vmamba_1x.py'

model = dict(
    backbone=dict(
        arch='tiny_s1l8',
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/vmamba_tiny_s1l8_in1k.pth'
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
