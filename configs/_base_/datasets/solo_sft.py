# SOLO's supervised fine-tuning data in LLaVA's format: 1.7M samples, with text alone
# and with images. The samples of a batch have similar lengths, and either all or none
# have images. The processor is the teacher's.
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    dataset=dict(
        type='mmtransmamba.ConversationDataset',
        files='data/solo/sft/*.jsonl',
        image_root='data/solo/images',
        processor='checkpoints/hovle-2.6b',
        max_length=2048,
    ),
    sampler=dict(type='mmtransmamba.LengthGroupedSampler', batch_size=16),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    dataset=dict(
        type='mmtransmamba.ConversationDataset',
        files='data/solo/val/*.jsonl',
        image_root='data/solo/images',
        processor='checkpoints/hovle-2.6b',
        max_length=2048,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_evaluator = dict(type='mmtransmamba.TokenMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
