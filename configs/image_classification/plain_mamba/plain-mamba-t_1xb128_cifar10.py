_base_ = [
    '../../_base_/models/plain_mamba_t.py',
    '../../_base_/datasets/cifar10_224.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=10))
