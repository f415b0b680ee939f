# Vim-T, pre-trained on ImageNet-1K; batches of 32, as its authors use.
_base_ = ['./_base_/upernet_plain.py', './_base_/ade20k_160k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmtransmamba.Vim',
        arch='tiny',
        img_size=512,
        out_type='featmap',
        out_indices=(5, 11, 17, 23),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/vim-t_in1k.pth'),
    ),
    neck=dict(embed_dim=192),
    decode_head=dict(in_channels=[192, 192, 192, 192]),
    auxiliary_head=dict(in_channels=192),
)
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=32)
