# Fine-tuning of a pre-trained teacher. The paper does not describe it.
_base_ = './adamw_300e.py'

optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=50)
