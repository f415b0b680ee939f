# PlainMamba-L2, pre-trained on ImageNet-1K.
_base_ = './_base_/mask_rcnn_plain_3x.py'

model = dict(
    backbone=dict(
        arch='L2',
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/plain-mamba-l2_in1k.pth'
        ),
    ),
    neck=dict(in_channels=384),
)
