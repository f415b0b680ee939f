# Teacher of the study on CIFAR-10. tools/studies/cifar10_teacher.py cuts the weights
# that it starts from out of a DeiT-Tiny of ImageNet-1k, and trains it.
_base_ = [
    '../_base_/models/deit_tiny_6_32.py',
    '../_base_/datasets/cifar10_shards_32.py',
    '../_base_/schedules/adamw_300e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=3e-4), clip_grad=dict(max_norm=5.0))
# Three epochs of 782 steps: the blocks are pre-trained.
train_dataloader = dict(batch_size=64)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=200),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=200, end=2346),
]
train_cfg = dict(max_epochs=3, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1))
