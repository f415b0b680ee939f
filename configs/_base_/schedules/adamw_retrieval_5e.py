# TransMamba, Section 4.2: 5 epochs of AdamW at 1e-4 with cosine decay, batches of 128.
# The paper specifies no warm-up and no weight decay. A tenth of the steps for warm-up
# and a thousandth of the rate for CLIP's parameters follow CLIP4Clip.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    constructor='mmtransmamba.NoWeightDecayConstructor',
    paramwise_cfg=dict(custom_keys=dict(text_encoder=dict(lr_mult=1e-3))),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=0.5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        begin=0.5,
        end=5,
        T_max=4.5,
        eta_min=0,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=5, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# Total batch size of the learning rate; used with --auto-scale-lr.
auto_scale_lr = dict(base_batch_size=128)
