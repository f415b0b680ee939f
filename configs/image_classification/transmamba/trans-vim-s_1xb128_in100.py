# Stochastic depth and weight decay are the official 0.05.
_base_ = './trans-vim-t_1xb128_in100.py'

model = dict(
    student=dict(
        backbone=dict(arch='small', drop_path_rate=0.05), head=dict(in_channels=384)
    ),
    teacher=dict(
        model=dict(backbone=dict(arch='deit-small'), head=dict(in_channels=384)),
        checkpoint='checkpoints/deit-small_in100.pth',
    ),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
