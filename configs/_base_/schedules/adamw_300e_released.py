# The released code's rate, 5e-4 * batch size / 512, for its batch size of 256.
_base_ = './adamw_300e.py'

optim_wrapper = dict(optimizer=dict(lr=2.5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=4e-3, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=256)
