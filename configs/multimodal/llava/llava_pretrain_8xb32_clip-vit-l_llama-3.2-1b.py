# LLaVA's first stage: the projector learns from image captions; everything else is
# frozen.
_base_ = [
    '../../_base_/datasets/llava_pretrain.py',
    '../../_base_/schedules/llava_pretrain.py',
    '../../_base_/llava_runtime.py',
]

model = dict(
    type='mmtransmamba.VisionLanguageModel',
    path='checkpoints/llava-llama-3.2-1b',
    stage='llava_pretrain',
    dtype='float32',
    gradient_checkpointing=True,
)
