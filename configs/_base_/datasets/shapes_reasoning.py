# Pictures of four cells with coloured shapes, and questions answered by counting them,
# from tools/dataset_converters/shapes_reasoning.py. Validation generates responses.
train_dataloader = dict(
    batch_size=12,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.ConversationDataset',
        files='data/shapes_reasoning/train.jsonl',
        format='llava_cot',
        processor='data/shapes_reasoning/processor',
    ),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='mmtransmamba.collate_conversations'),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.ConversationDataset',
        files='data/shapes_reasoning/val.jsonl',
        format='llava_cot',
        processor='data/shapes_reasoning/processor',
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
