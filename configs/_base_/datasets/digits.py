# 1,797 handwritten digits, 8x8 grey, shipped with scikit-learn; 16 levels of grey.
data_preprocessor = dict(
    type='ClsDataPreprocessor', num_classes=10, mean=[77.0], std=[95.0], to_rgb=False
)

train_pipeline = [
    dict(
        type='mmtransmamba.RandomAffine',
        degrees=15,
        translate=0.125,
        scale=(0.85, 1.15),
        shear=10,
    ),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=60,
    num_workers=0,
    dataset=dict(type='mmtransmamba.Digits', split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=200,
    num_workers=0,
    dataset=dict(type='mmtransmamba.Digits', split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
