_base_ = './trans-vrwkv-t_1xb128_in1k.py'

model = dict(
    student=dict(backbone=dict(arch='small'), head=dict(in_channels=384)),
    teacher=dict(
        model=dict(backbone=dict(arch='deit-small'), head=dict(in_channels=384)),
        checkpoint='checkpoints/deit-small_pt-4xb256_in1k_20220218-9425b9bb.pth',
    ),
)
