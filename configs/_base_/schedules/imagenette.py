# 400 steps of 32 images for every row of the study, however many images it has.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    constructor='mmtransmamba.NoWeightDecayConstructor',
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=50),
]
train_cfg = dict(by_epoch=False, max_iters=400, val_interval=50)
val_cfg = dict()
test_cfg = dict()
