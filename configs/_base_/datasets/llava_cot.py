# LLaVA-CoT's responses in four sections, as tools/dataset_converters/llava_cot.py
# splits them: 80K for the teacher. Validation generates responses; no row of it is
# trained on. The processor is the model's.
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
        # One that is cut would teach not to come to a conclusion.
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
