# The 3B model.
_base_ = './reasoning-sft_8xb16_clip-vit-l_llama-3.2-1b.py'

model = dict(path='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-3b/model')
train_dataloader = dict(
    dataset=dict(
        processor='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-3b/model'
    ),
)
val_dataloader = dict(
    dataset=dict(
        processor='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-3b/model'
    ),
)
test_dataloader = val_dataloader
