# VMamba-S (small_s2l15), pre-trained on ImageNet-1K.
_base_ = './_base_/mask_rcnn_vmamba_3x.py'

model = dict(
    backbone=dict(
        arch='small_s2l15',
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/vmamba_small_s2l15_in1k.pth'
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
