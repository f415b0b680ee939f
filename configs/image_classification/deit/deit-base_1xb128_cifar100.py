_base_ = './deit-tiny_1xb128_cifar100.py'

model = dict(
    backbone=dict(
        arch='deit-base',
        init_cfg=dict(
            checkpoint='checkpoints/deit-base_pt-16xb64_in1k_20220216-db63c16c.pth'
        ),
    ),
    head=dict(in_channels=768),
)
