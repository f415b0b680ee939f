# Loaders of labelled images. A data set that builds on them adds its type, `data_root`,
# `split` and `pipeline`; `mmtransmamba.Subset` chooses a part of the training set.
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(
        type='mmtransmamba.Subset',
        proportion=1.0,
        seed=0,
        dataset=dict(split='train'),
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    dataset=dict(split='val'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
