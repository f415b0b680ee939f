# LLaVA's second stage: projector and language model learn to follow instructions.
_base_ = [
    '../../_base_/datasets/llava_mix665k.py',
    '../../_base_/schedules/llava_finetune.py',
    '../../_base_/llava_runtime.py',
]

model = dict(
    type='mmtransmamba.VisionLanguageModel',
    path='work_dirs/llava_pretrain_8xb32_clip-vit-l_llama-3.2-1b/model',
    stage='llava_finetune',
    dtype='float32',
    gradient_checkpointing=True,
)
