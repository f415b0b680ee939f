# MaTVLM, Section 4.1: AdamW at 2e-4, WSD with 10 % warm-up and 10 % decay, one epoch.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.95), weight_decay=0.01),
    constructor='mmtransmamba.NoWeightDecayConstructor',
    # Embeddings tied to the head occur twice.
    paramwise_cfg=dict(bypass_duplicate=True),
)
param_scheduler = dict(
    type='mmtransmamba.WSD', warmup=0.1, decay=0.1, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
test_cfg = dict()

# Total batch size of the learning rate; used with --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=64)
