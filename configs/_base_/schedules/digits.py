# Epochs over the student's 30 digits; one epoch is one step.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    constructor='mmtransmamba.NoWeightDecayConstructor',
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=60, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=60, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=600, val_interval=20)
val_cfg = dict()
test_cfg = dict()
