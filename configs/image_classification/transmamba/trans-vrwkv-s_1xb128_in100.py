_base_ = './trans-vrwkv-t_1xb128_in100.py'

model = dict(
    student=dict(backbone=dict(arch='small'), head=dict(in_channels=384)),
    teacher=dict(
        model=dict(backbone=dict(arch='deit-small'), head=dict(in_channels=384)),
        checkpoint='checkpoints/deit-small_in100.pth',
    ),
)
