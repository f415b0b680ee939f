_base_ = [
    '../../_base_/models/deit_tiny.py',
    '../../_base_/datasets/in100_224.py',
    '../../_base_/schedules/adamw_finetune_50e.py',
    '../../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=100))
