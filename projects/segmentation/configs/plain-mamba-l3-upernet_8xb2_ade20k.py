# PlainMamba-L3, pre-trained on ImageNet-1K.
_base_ = ['./_base_/upernet_plain.py', './_base_/ade20k_160k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmtransmamba.PlainMamba',
        arch='L3',
        img_size=512,
        out_indices=(8, 17, 26, 35),
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/plain-mamba-l3_in1k.pth'
        ),
    ),
    neck=dict(embed_dim=448),
    decode_head=dict(in_channels=[448, 448, 448, 448]),
    auxiliary_head=dict(in_channels=448),
)
