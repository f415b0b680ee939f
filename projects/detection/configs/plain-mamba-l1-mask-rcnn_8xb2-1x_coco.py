# PlainMamba-L1, pre-trained on ImageNet-1K.
_base_ = './_base_/mask_rcnn_plain_1x.py'

model = dict(
    backbone=dict(
        arch='L1',
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/plain-mamba-l1_in1k.pth'
        ),
    ),
    neck=dict(in_channels=192),
)
