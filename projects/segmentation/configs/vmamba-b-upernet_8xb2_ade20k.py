# VMamba-B (base_s2l15), pre-trained on ImageNet-1K.
_base_ = ['./_base_/upernet_vmamba.py', './_base_/ade20k_160k.py']

model = dict(
    backbone=dict(
        arch='base_s2l15',
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/vmamba_base_s2l15_in1k.pth'
        ),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
