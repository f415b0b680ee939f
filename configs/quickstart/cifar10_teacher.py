# Teacher of the study on CIFAR-10. tools/studies/cifar10_teacher.py cuts the weights
# that it starts from out of a DeiT-Tiny of ImageNet-1k, and trains it.
_base_ = [
    '../_base_/models/deit_tiny_6_32.py',
    '../_base_/datasets/cifar10_shards_32.py',
    '../_base_/schedules/adamw_300e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=3e-4), clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=12, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1))
