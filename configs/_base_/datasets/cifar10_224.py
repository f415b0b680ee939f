# CIFAR-10, enlarged to 224 pixels as the paper does.
_base_ = ['./augment_224.py', './image_loader.py']

data_preprocessor = dict(num_classes=10)

# The dataset's images are RGB, the transforms expect BGR.
to_bgr = [dict(type='NumpyToPIL', to_rgb=False), dict(type='PILToNumpy', to_bgr=True)]
train_pipeline = [*to_bgr, *_base_.train_transforms]
test_pipeline = [*to_bgr, *_base_.test_transforms]

train_dataloader = dict(
    dataset=dict(
        dataset=dict(type='CIFAR10', data_root='data/cifar10', pipeline=train_pipeline)
    )
)
val_dataloader = dict(
    dataset=dict(
        type='CIFAR10', data_root='data/cifar10', split='test', pipeline=test_pipeline
    )
)
test_dataloader = val_dataloader
