# Another teacher for the example: the same ViT, trained on all 400 labelled scenes. It
# knows what the student has to learn, unlike the classifier of single shapes.
_base_ = ['./_base_/upernet_shapes.py', './_base_/shapes.py']

model = dict(
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=192),
        img_size=64,
        patch_size=4,
        with_cls_token=False,
        out_type='featmap',
        out_indices=(0, 1, 2, 3),
        final_norm=False,
    ),
    neck=dict(
        type='Feature2Pyramid',
        embed_dim=48,
        rescales=[2, 1, 0.5, 0.25],
        norm_cfg=dict(type='BN'),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_iters=1200, val_interval=400)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=60),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=60, end=1200),
]
default_hooks = dict(checkpoint=dict(interval=1200))
