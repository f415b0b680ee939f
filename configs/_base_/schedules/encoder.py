# Iterations of one stage of a converted encoder. The settings have not been tuned.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    constructor='mmtransmamba.NoWeightDecayConstructor',
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = dict(type='mmtransmamba.WSD', warmup=0.1, decay=0.5, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=500)
val_cfg = dict()
test_cfg = dict()
