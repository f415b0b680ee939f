# The same segmentor with labels for 40 scenes only. It learns one class of shapes after
# another, in sudden steps, so it needs a longer schedule for results that do not depend
# on when the last step came.
_base_ = './plain-mamba-upernet_shapes.py'

train_dataloader = dict(dataset=dict(num_images=40))
train_cfg = dict(max_iters=800, val_interval=100)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=80),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=80, end=800),
]
default_hooks = dict(checkpoint=dict(interval=800))
