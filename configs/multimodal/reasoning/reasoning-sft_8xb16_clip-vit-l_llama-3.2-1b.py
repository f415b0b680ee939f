# The teacher: a LLaVA learns to reason in four sections, on 80K samples. The settings
# are those of LLaVA's fine-tuning.
_base_ = [
    '../../_base_/datasets/llava_cot.py',
    '../../_base_/schedules/llava_finetune.py',
    '../../_base_/llava_runtime.py',
]

model = dict(
    type='mmtransmamba.VisionLanguageModel',
    path='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-1b/model',
    stage='reasoning',
    head=dict(type='mmtransmamba.ReasoningHead', max_new_tokens=2048),
    dtype='float32',
    gradient_checkpointing=True,
)
