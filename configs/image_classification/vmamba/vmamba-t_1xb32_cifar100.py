_base_ = [
    '../../_base_/models/vmamba_t.py',
    '../../_base_/datasets/cifar100_224.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=100))
train_dataloader = dict(batch_size=32)
auto_scale_lr = dict(base_batch_size=32)
