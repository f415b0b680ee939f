# The 3B model of Table VI. No Mamba-1 of its width is published, so the mixers are
# randomly initialised.
_base_ = './reasoning-llava-mamba-hybrid-13pct-high_8xb16_llama-3.2-1b.py'

model = dict(
    student=dict(
        path='work_dirs/reasoning-sft_8xb16_clip-vit-l_llama-3.2-3b/model',
        convert=dict(mamba_checkpoint=None),
    ),
    teacher=dict(path='work_dirs/reasoning-sft_8xb16_clip-vit-l_llama-3.2-3b/model'),
)
train_dataloader = dict(
    dataset=dict(
        processor='work_dirs/reasoning-sft_8xb16_clip-vit-l_llama-3.2-3b/model'
    ),
)
val_dataloader = dict(
    dataset=dict(
        processor='work_dirs/reasoning-sft_8xb16_clip-vit-l_llama-3.2-3b/model'
    ),
)
test_dataloader = val_dataloader
