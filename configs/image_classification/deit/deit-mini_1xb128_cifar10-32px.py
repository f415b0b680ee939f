# The teacher sees all 50,000 images: it stands in for large-scale pre-training.
_base_ = [
    '../../_base_/models/deit_mini_32.py',
    '../../_base_/datasets/cifar10_shards_32.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=6, val_interval=1)
