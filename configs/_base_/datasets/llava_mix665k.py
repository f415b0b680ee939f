# LLaVA-1.5's mixture of 665K conversations, with and without images. The samples of a
# batch have similar lengths, and either all or none have images. The processor is the
# model's. A few hundred rows held out from training are the validation set.
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    dataset=dict(
        type='mmtransmamba.ConversationDataset',
        files='data/LLaVA-Instruct/llava_v1_5_mix665k.json',
        image_root='data/LLaVA-Instruct/images',
        processor='checkpoints/llava-llama-3.2-1b',
        image_place='first',
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
        files='data/LLaVA-Instruct/val.json',
        image_root='data/LLaVA-Instruct/images',
        processor='checkpoints/llava-llama-3.2-1b',
        image_place='first',
        max_length=2048,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_evaluator = dict(type='mmtransmamba.TokenMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
