# The 3B model.
_base_ = './llava_pretrain_8xb32_clip-vit-l_llama-3.2-1b.py'

model = dict(path='checkpoints/llava-llama-3.2-3b')
train_dataloader = dict(dataset=dict(processor='checkpoints/llava-llama-3.2-3b'))
val_dataloader = dict(dataset=dict(processor='checkpoints/llava-llama-3.2-3b'))
test_dataloader = val_dataloader
