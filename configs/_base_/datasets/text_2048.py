# Text files in blocks of 2,048 tokens: .jsonl with one document per line; any other
# file is one document. The tokenizer is the teacher's.
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    dataset=dict(
        type='mmtransmamba.PackedText',
        files='data/text/train/*.jsonl',
        tokenizer='checkpoints/Llama-3.2-1B',
        block_size=2048,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='mmtransmamba.collate_tokens'),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    dataset=dict(
        type='mmtransmamba.PackedText',
        files='data/text/val/*.jsonl',
        tokenizer='checkpoints/Llama-3.2-1B',
        block_size=2048,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmtransmamba.collate_tokens'),
)
val_evaluator = dict(type='mmtransmamba.TokenMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
