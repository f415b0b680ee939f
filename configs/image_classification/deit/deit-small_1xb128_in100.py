_base_ = './deit-tiny_1xb128_in100.py'

model = dict(
    backbone=dict(
        arch='deit-small',
        init_cfg=dict(
            checkpoint='checkpoints/deit-small_pt-4xb256_in1k_20220218-9425b9bb.pth'
        ),
    ),
    head=dict(in_channels=384),
)
