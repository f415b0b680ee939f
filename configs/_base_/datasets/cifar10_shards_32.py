# CIFAR-10 from JPEG shards (docs/data.md), at its native 32 pixels.
_base_ = './image_loader.py'

data_preprocessor = dict(
    type='ClsDataPreprocessor',
    num_classes=10,
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=True,
)

# The dataset's images are RGB, the transforms expect BGR.
to_bgr = [dict(type='NumpyToPIL', to_rgb=False), dict(type='PILToNumpy', to_bgr=True)]
train_pipeline = [
    *to_bgr,
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [*to_bgr, dict(type='PackInputs')]

train_dataloader = dict(
    num_workers=2,
    dataset=dict(
        dataset=dict(
            type='mmtransmamba.CIFAR10Shards',
            data_root='data/cifar10',
            pipeline=train_pipeline,
        )
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    dataset=dict(
        type='mmtransmamba.CIFAR10Shards',
        data_root='data/cifar10',
        split='test',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
