# ImageNet-1k: data/imagenet/{train,val}/WNID/*.JPEG, or with lists in meta/.
_base_ = './augment_224.py'

load = dict(type='LoadImageFromFile')
train_pipeline = [load, *_base_.train_transforms]
test_pipeline = [load, *_base_.test_transforms]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(
        type='mmtransmamba.Subset',
        proportion=1.0,
        seed=0,
        dataset=dict(
            type='ImageNet',
            data_root='data/imagenet',
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
        type='ImageNet',
        data_root='data/imagenet',
        split='val',
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
