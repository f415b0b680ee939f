# LLaVA-CoT's responses in four sections, split by
# tools/dataset_converters/llava_cot.py: 80K for the teacher. Validation generates
# responses; its rows are not used for training. The processor is the model's.
train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    dataset=dict(
        type='mmtransmamba.ConversationDataset',
        files='data/llava_cot/teacher.jsonl',
        image_root='data/llava_cot/images',
        format='llava_cot',
        processor='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-1b/model',
        image_place='first',
        max_length=2048,
        # A truncated sample would teach the model not to reach a conclusion.
        too_long='skip',
    ),
    sampler=dict(type='mmtransmamba.LengthGroupedSampler', batch_size=16),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(
        type='mmtransmamba.ConversationDataset',
        files='data/llava_cot/val.jsonl',
        image_root='data/llava_cot/images',
        format='llava_cot',
        processor='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-1b/model',
        image_place='first',
        max_length=2048,
        prompts=True,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_evaluator = [
    dict(type='mmtransmamba.ReasoningFormat'),
    dict(type='mmtransmamba.ReasoningAccuracy'),
]
test_dataloader = val_dataloader
test_evaluator = val_evaluator
