# Loaders of conversations, with and without images, cut to 2,048 tokens. The samples of
# a batch have similar lengths, and either all or none have images. A data set that
# builds on them adds `files`, `image_root` and the model's `processor`.
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    dataset=dict(type='mmtransmamba.ConversationDataset', max_length=2048),
    sampler=dict(type='mmtransmamba.LengthGroupedSampler', batch_size=16),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    dataset=dict(type='mmtransmamba.ConversationDataset', max_length=2048),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_evaluator = dict(type='mmtransmamba.TokenMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
