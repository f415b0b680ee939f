# ImageNet-1k: data/imagenet/{train,val}/WNID/*.JPEG, or with lists in meta/.
_base_ = ['./augment_224.py', './image_loader.py']

load = dict(type='LoadImageFromFile')
train_pipeline = [load, *_base_.train_transforms]
test_pipeline = [load, *_base_.test_transforms]

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            type='ImageNet', data_root='data/imagenet', pipeline=train_pipeline
        )
    )
)
val_dataloader = dict(
    dataset=dict(type='ImageNet', data_root='data/imagenet', pipeline=test_pipeline)
)
test_dataloader = val_dataloader
