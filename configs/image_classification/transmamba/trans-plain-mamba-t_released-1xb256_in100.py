_base_ = [
    '../../_base_/models/trans_plain_mamba_t_released.py',
    '../../_base_/datasets/in100_224.py',
    '../../_base_/schedules/adamw_300e_released.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    student=dict(head=dict(num_classes=100)),
    teacher=dict(
        model=dict(head=dict(num_classes=100)),
        checkpoint='checkpoints/deit-tiny_in100.pth',
    ),
)
train_dataloader = dict(batch_size=256, dataset=dict(proportion=0.75))
