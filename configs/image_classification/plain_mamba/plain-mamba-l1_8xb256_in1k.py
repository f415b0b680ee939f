# The official recipe: 8 x 256 images at a rate of 2e-3, 300 epochs.
_base_ = './plain-mamba-t_1xb128_in1k.py'

model = dict(backbone=dict(arch='L1'))
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=5e-4, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=2048)
