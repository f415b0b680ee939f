# Views of 2,000 images of Imagenette with what DeiT-Tiny says of them, recorded by
# tools/studies/vision.py. Validation is on an eighth of the 3,925 images, the test on
# all of them.
data_preprocessor = dict(
    type='ClsDataPreprocessor',
    num_classes=10,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

# The datasets' images are RGB, the transforms expect BGR.
to_bgr = [dict(type='NumpyToPIL', to_rgb=False), dict(type='PILToNumpy', to_bgr=True)]
train_pipeline = [*to_bgr, dict(type='PackInputs', meta_keys=('teacher_record',))]
test_pipeline = [
    *to_bgr,
    dict(type='Resize', scale=(72, 72), interpolation='area'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.Subset',
        proportion=1.0,
        seed=0,
        dataset=dict(
            type='mmtransmamba.RecordedViews',
            data_root='data/imagenette_views',
            layers=[11],
            pipeline=train_pipeline,
        ),
    ),
    sampler=dict(type='InfiniteSampler', shuffle=True),
)
test_dataloader = dict(
    batch_size=128,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.ImagenetteShards',
        data_root='data/imagenette96',
        split='val',
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.Subset',
        proportion=0.125,
        seed=0,
        dataset=test_dataloader['dataset'],
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
