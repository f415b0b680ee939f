# PlainMamba-L1, pre-trained on ImageNet-1K.
_base_ = ['./_base_/upernet_plain.py', './_base_/ade20k_160k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmtransmamba.PlainMamba',
        arch='L1',
        img_size=512,
        out_indices=(5, 11, 17, 23),
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/plain-mamba-l1_in1k.pth'
        ),
    ),
    neck=dict(embed_dim=192),
    decode_head=dict(in_channels=[192, 192, 192, 192]),
    auxiliary_head=dict(in_channels=192),
)
