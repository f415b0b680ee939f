"""A config that trains within a second: a one-layer ViT on the digits."""

default_scope = 'mmpretrain'
pipeline = [dict(type='PackInputs')]
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(num_classes=10, mean=[127.5], std=[127.5], to_rgb=False),
    backbone=dict(
        type='VisionTransformer',
        img_size=8,
        patch_size=2,
        in_channels=1,
        arch=dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=64),
    ),
    head=dict(type='VisionTransformerClsHead', num_classes=10, in_channels=32),
)
train_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mmtransmamba.Digits', split='train', pipeline=pipeline),
)
val_dataloader = test_dataloader = dict(
    batch_size=200,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mmtransmamba.Digits', split='test', pipeline=pipeline),
)
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1,))
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.003))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
randomness = dict(seed=0)
