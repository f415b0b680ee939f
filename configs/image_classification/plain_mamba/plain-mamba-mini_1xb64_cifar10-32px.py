# The student alone on 5,000 of the 50,000 images: 79 steps an epoch.
_base_ = [
    '../../_base_/models/plain_mamba_mini_32.py',
    '../../_base_/datasets/cifar10_shards_32.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=64, dataset=dict(proportion=0.1))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=2, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=15, val_interval=3)
auto_scale_lr = dict(base_batch_size=64)
