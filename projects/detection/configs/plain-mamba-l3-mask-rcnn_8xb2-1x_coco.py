# PlainMamba-L3, pre-trained on ImageNet-1K.
_base_ = './_base_/mask_rcnn_plain_1x.py'

model = dict(
    backbone=dict(
        arch='L3',
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/plain-mamba-l3_in1k.pth'
        ),
    ),
    neck=dict(in_channels=448),
)
