# The paper specifies no batch size for RWKV; we use that of PMamba of the same width.
_base_ = [
    '../../_base_/models/trans_vrwkv_t.py',
    '../../_base_/datasets/cifar100_224.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    student=dict(head=dict(num_classes=100)),
    teacher=dict(
        model=dict(head=dict(num_classes=100)),
        checkpoint='checkpoints/deit-tiny_cifar100.pth',
    ),
)
train_dataloader = dict(dataset=dict(proportion=0.75))
