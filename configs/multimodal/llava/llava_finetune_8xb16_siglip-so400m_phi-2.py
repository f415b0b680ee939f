# SigLIP and Phi-2, the parts of TinyLLaVA, on ShareGPT4V's conversations.
_base_ = [
    '../../_base_/datasets/sharegpt4v_sft.py',
    '../../_base_/schedules/llava_finetune.py',
    '../../_base_/llava_runtime.py',
]

model = dict(
    type='mmtransmamba.VisionLanguageModel',
    path='work_dirs/llava_pretrain_8xb32_siglip-so400m_phi-2/model',
    stage='llava_finetune',
    dtype='float32',
    gradient_checkpointing=True,
)
train_dataloader = dict(dataset=dict(processor='checkpoints/llava-phi-2'))
val_dataloader = dict(dataset=dict(processor='checkpoints/llava-phi-2'))
test_dataloader = val_dataloader
