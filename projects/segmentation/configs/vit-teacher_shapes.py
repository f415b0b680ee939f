# The teacher of the example: a ViT trained to classify single shapes. It never sees
# pixel labels.
custom_imports = dict(imports=['projects.segmentation.datasets'])
_base_ = '../../../configs/_base_/default_runtime.py'

data_preprocessor = dict(
    type='ClsDataPreprocessor',
    num_classes=4,
    mean=[127.5, 127.5, 127.5],
    std=[74.0, 74.0, 74.0],
    to_rgb=True,
)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=192),
        img_size=64,
        patch_size=8,
        # The class is predicted from the mean of the patches instead of a class token,
        # so that the patches, which teach a segmentor, contain it.
        with_cls_token=False,
        out_type='avg_featmap',
    ),
    neck=None,
    head=dict(type='LinearClsHead', num_classes=4, in_channels=48),
)

train_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmtransmamba.SingleShapes',
        split='train',
        num_images=2000,
        pipeline=[dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')],
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmtransmamba.SingleShapes',
        split='val',
        num_images=400,
        pipeline=[dict(type='PackInputs')],
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=3, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=5)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(
    logger=dict(interval=40), checkpoint=dict(interval=20, max_keep_ckpts=1)
)
