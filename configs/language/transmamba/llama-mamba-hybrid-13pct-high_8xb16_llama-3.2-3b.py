# The 3B model. No Mamba-1 of its width is published, so the mixers are randomly
# initialised.
_base_ = './llama-mamba-hybrid-13pct-high_8xb16_llama-3.2-1b.py'

model = dict(
    student=dict(path='checkpoints/Llama-3.2-3B', convert=dict(mamba_checkpoint=None)),
    teacher=dict(path='checkpoints/Llama-3.2-3B'),
)
train_dataloader = dict(dataset=dict(tokenizer='checkpoints/Llama-3.2-3B'))
val_dataloader = dict(dataset=dict(tokenizer='checkpoints/Llama-3.2-3B'))
test_dataloader = val_dataloader
