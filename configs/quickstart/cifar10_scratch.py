# The student alone on 2,000 images of CIFAR-10. Validation is on a tenth of the 10,000
# test images, the test on all of them.
_base_ = [
    '../_base_/models/plain_mamba_cifar10.py',
    '../_base_/datasets/cifar10_shards_32.py',
    '../_base_/schedules/imagenette.py',
    '../_base_/imagenette_runtime.py',
]

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(proportion=0.04),
    sampler=dict(type='InfiniteSampler'),
)
test_dataloader = dict(num_workers=0)
val_dataloader = dict(
    num_workers=0,
    dataset=dict(
        _delete_=True,
        type='mmtransmamba.Subset',
        proportion=0.1,
        seed=0,
        dataset=_base_.val_dataloader.dataset,
    ),
)
