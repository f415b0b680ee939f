# Iterations for a vision-language model of 0.6M parameters on a CPU.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05),
    constructor='mmtransmamba.NoWeightDecayConstructor',
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = dict(type='mmtransmamba.WSD', warmup=0.05, decay=0.5, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1400, val_interval=1400)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
