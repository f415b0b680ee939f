# mmMamba, Section 5.1: 20K iterations of AdamW in each stage, WSD with 10 % warm-up and
# 10 % decay, gradients clipped at 5. The rate is stage 1's.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mmtransmamba.NoWeightDecayConstructor',
    # Embeddings tied to the head occur twice.
    paramwise_cfg=dict(bypass_duplicate=True),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = dict(type='mmtransmamba.WSD', warmup=0.1, decay=0.1, by_epoch=False)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=20000, val_interval=2000)
val_cfg = dict()
test_cfg = dict()

# Total batch size of the learning rate; used with --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=128)
