# TransMamba, Section 4.2: 300 epochs of AdamW at 5e-4 with cosine decay. Weight decay,
# warm-up and final rate come from the released code; the paper does not specify them.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    constructor='mmtransmamba.NoWeightDecayConstructor',
)
param_scheduler = [
    dict(type='LinearLR', start_factor=2e-3, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=5, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# Total batch size of the learning rate; used with --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=128)
