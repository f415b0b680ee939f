# SigLIP and Phi-2, the parts of TinyLLaVA.
_base_ = './llava_pretrain_8xb32_clip-vit-l_llama-3.2-1b.py'

model = dict(path='checkpoints/llava-phi-2')
train_dataloader = dict(dataset=dict(processor='checkpoints/llava-phi-2'))
val_dataloader = dict(dataset=dict(processor='checkpoints/llava-phi-2'))
test_dataloader = val_dataloader
