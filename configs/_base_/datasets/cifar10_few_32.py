# 2,000 labelled images of CIFAR-10, for loops over iterations. Validation is on a tenth
# of the 10,000 test images, the test on all of them.
_base_ = './cifar10_shards_32.py'

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(proportion=0.04),
    sampler=dict(type='InfiniteSampler'),
)
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
test_dataloader = dict(num_workers=0)
