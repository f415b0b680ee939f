# The 3B model. No Mamba-1 of its width is published, so the mixers are randomly
# initialised.
_base_ = './llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-1b.py'

model = dict(
    student=dict(
        path='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-3b/model',
        convert=dict(mamba_checkpoint=None),
    ),
    teacher=dict(path='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-3b/model'),
)
train_dataloader = dict(dataset=dict(processor='checkpoints/llava-llama-3.2-3b'))
val_dataloader = dict(dataset=dict(processor='checkpoints/llava-llama-3.2-3b'))
test_dataloader = val_dataloader
