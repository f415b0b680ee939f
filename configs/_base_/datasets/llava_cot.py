# LLaVA-CoT's responses in four sections, split by
# tools/dataset_converters/llava_cot.py: 80K for the teacher. Validation generates
# responses; its rows are not used for training. The processor is the model's.
_base_ = './conversation_loader.py'

train_dataloader = dict(
    dataset=dict(
        # A truncated sample would teach the model not to reach a conclusion.
        too_long='skip',
        files='data/llava_cot/teacher.jsonl',
        image_root='data/llava_cot/images',
        format='llava_cot',
        processor='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-1b/model',
        image_place='first',
    ),
)
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        files='data/llava_cot/val.jsonl',
        prompts=True,
        image_root='data/llava_cot/images',
        format='llava_cot',
        processor='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-1b/model',
        image_place='first',
    ),
)
val_evaluator = [
    dict(type='mmtransmamba.ReasoningFormat'),
    dict(type='mmtransmamba.ReasoningAccuracy'),
]
test_evaluator = val_evaluator
test_dataloader = val_dataloader
