# LLaVA's 558K images with captions, for pre-training the projector: the prompt is the
# image alone. The processor is the model's. A few hundred rows held out from training
# are the validation set.
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    dataset=dict(
        type='mmtransmamba.ConversationDataset',
        files='data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json',
        image_root='data/LLaVA-Pretrain/images',
        processor='checkpoints/llava-llama-3.2-1b',
        template='llava_plain',
        max_length=2048,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(
        type='mmtransmamba.ConversationDataset',
        files='data/LLaVA-Pretrain/val.json',
        image_root='data/LLaVA-Pretrain/images',
        processor='checkpoints/llava-llama-3.2-1b',
        template='llava_plain',
        max_length=2048,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_evaluator = dict(type='mmtransmamba.TokenMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
