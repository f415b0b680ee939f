# Imagenette from JPEG shards (docs/data.md), at their 96 pixels.
_base_ = './image_loader.py'

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
        dataset=dict(
            type='mmtransmamba.ImagenetteShards',
            data_root='data/imagenette96',
            pipeline=train_pipeline,
        )
    ),
)
val_dataloader = dict(
    num_workers=2,
    dataset=dict(
        type='mmtransmamba.ImagenetteShards',
        data_root='data/imagenette96',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
