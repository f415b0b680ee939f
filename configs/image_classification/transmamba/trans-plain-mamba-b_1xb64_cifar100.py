_base_ = './trans-plain-mamba-t_1xb128_cifar100.py'

model = dict(
    student=dict(backbone=dict(arch='B'), head=dict(in_channels=768)),
    teacher=dict(
        model=dict(backbone=dict(arch='deit-base'), head=dict(in_channels=768)),
        checkpoint='checkpoints/deit-base_cifar100.pth',
    ),
)
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=64)
