# SOLO's supervised fine-tuning data in LLaVA's format: 1.7M samples. The processor
# is the teacher's.
_base_ = './conversation_loader.py'

train_dataloader = dict(
    dataset=dict(
        files='data/solo/sft/*.jsonl',
        image_root='data/solo/images',
        processor='checkpoints/hovle-2.6b',
    ),
)
val_dataloader = dict(
    dataset=dict(
        files='data/solo/val/*.jsonl',
        image_root='data/solo/images',
        processor='checkpoints/hovle-2.6b',
    ),
)
test_dataloader = val_dataloader
