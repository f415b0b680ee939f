# The student alone on 5,000 of the 50,000 images: 39 steps an epoch.
_base_ = [
    '../../_base_/models/plain_mamba_mini_32.py',
    '../../_base_/datasets/cifar10_shards_32.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(proportion=0.1))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=100, val_interval=5)
