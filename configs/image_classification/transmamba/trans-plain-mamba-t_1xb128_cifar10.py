_base_ = [
    '../../_base_/models/trans_plain_mamba_t.py',
    '../../_base_/datasets/cifar10_224.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    student=dict(head=dict(num_classes=10)),
    teacher=dict(
        model=dict(head=dict(num_classes=10)),
        checkpoint='checkpoints/deit-tiny_cifar10.pth',
    ),
)
train_dataloader = dict(dataset=dict(proportion=0.75))
