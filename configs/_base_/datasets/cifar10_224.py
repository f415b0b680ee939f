# CIFAR-10, enlarged to 224 pixels as the paper does.
_base_ = './augment_224.py'

data_preprocessor = dict(num_classes=10)

# The dataset's images are RGB, the transforms expect BGR.
to_bgr = [dict(type='NumpyToPIL', to_rgb=False), dict(type='PILToNumpy', to_bgr=True)]
train_pipeline = [*to_bgr, *_base_.train_transforms]
test_pipeline = [*to_bgr, *_base_.test_transforms]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(
        type='mmtransmamba.Subset',
        proportion=1.0,
        seed=0,
        dataset=dict(
            type='CIFAR10',
            data_root='data/cifar10',
            split='train',
            pipeline=train_pipeline,
        ),
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    dataset=dict(
        type='CIFAR10',
        data_root='data/cifar10',
        split='test',
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
