# 100 classes of ImageNet: data/imagenet100/{train,val}/WNID/*.JPEG. The paper drew its
# classes at random and does not list them, so the folders define the classes.
_base_ = './in1k_224.py'

data_preprocessor = dict(num_classes=100)

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='CustomDataset',
            data_root='data/imagenet100',
            data_prefix='train',
            pipeline=_base_.train_pipeline,
        )
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/imagenet100',
        data_prefix='val',
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader
