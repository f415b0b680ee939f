# 4,000 stories of 256 tokens sampled from the teacher, and 400 for validation.
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.TokenSamples', file='data/stories260k/samples_train.npz'
    ),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='mmtransmamba.collate_tokens'),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.TokenSamples', file='data/stories260k/samples_val.npz'
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmtransmamba.collate_tokens'),
)
val_evaluator = dict(type='mmtransmamba.TokenMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
