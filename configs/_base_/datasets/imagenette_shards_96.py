# Imagenette from JPEG shards (docs/data.md), at their 96 pixels.
data_preprocessor = dict(
    type='ClsDataPreprocessor',
    num_classes=10,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

# The dataset's images are RGB, the transforms expect BGR.
to_bgr = [dict(type='NumpyToPIL', to_rgb=False), dict(type='PILToNumpy', to_bgr=True)]
train_pipeline = [
    *to_bgr,
    dict(type='RandomResizedCrop', scale=96, crop_ratio_range=(0.35, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [*to_bgr, dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    dataset=dict(
        type='mmtransmamba.Subset',
        proportion=1.0,
        seed=0,
        dataset=dict(
            type='mmtransmamba.ImagenetteShards',
            data_root='data/imagenette96',
            split='train',
            pipeline=train_pipeline,
        ),
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    dataset=dict(
        type='mmtransmamba.ImagenetteShards',
        data_root='data/imagenette96',
        split='val',
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
