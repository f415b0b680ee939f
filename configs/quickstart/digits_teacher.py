# The teacher sees all training digits: it stands in for large-scale pre-training.
_base_ = [
    '../_base_/models/deit_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits.py',
    '../_base_/digits_runtime.py',
]

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=150, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=50))
custom_hooks = [dict(type='mmtransmamba.ProgressBarHook', title='teacher')]
