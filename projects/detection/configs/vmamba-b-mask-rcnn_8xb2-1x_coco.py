# VMamba-B (base_s2l15), pre-trained on ImageNet-1K.
_base_ = './_base_/mask_rcnn_vmamba_1x.py'

model = dict(
    backbone=dict(
        arch='base_s2l15',
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/vmamba_base_s2l15_in1k.pth'
        ),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
