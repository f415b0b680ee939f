# LLaVA-1.5's: AdamW at 1e-3 without weight decay, 3 % warm-up, cosine, one epoch.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = dict(
    type='mmtransmamba.WSD',
    warmup=0.03,
    decay=0.97,
    form='cosine',
    convert_to_iter_based=True,
)
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = dict()
test_cfg = dict()

# Total batch size of the learning rate; used with --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=256)
