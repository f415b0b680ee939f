# VMamba-S (small_s2l15), pre-trained on ImageNet-1K.
_base_ = ['./_base_/upernet_vmamba.py', './_base_/ade20k_160k.py']

model = dict(
    backbone=dict(
        arch='small_s2l15',
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/vmamba_small_s2l15_in1k.pth'
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
