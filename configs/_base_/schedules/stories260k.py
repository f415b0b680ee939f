# Iterations for a tiny model on a CPU.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mmtransmamba.NoWeightDecayConstructor',
    # Embeddings tied to the head occur twice.
    paramwise_cfg=dict(bypass_duplicate=True),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = dict(type='mmtransmamba.WSD', warmup=0.1, decay=0.1, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=300, val_interval=300)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=16)
