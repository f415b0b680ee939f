# Teacher and student start from the folder that LLaVA's fine-tuning writes; a recipe
# specifies how the student is converted. Trained weights are float32.
_base_ = '../datasets/llava_mix665k.py'

model = dict(
    type='mmtransmamba.LanguageDistiller',
    student=dict(
        type='mmtransmamba.VisionLanguageModel',
        path='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-1b/model',
        dtype='float32',
    ),
    teacher=dict(
        type='mmtransmamba.VisionLanguageModel',
        path='work_dirs/llava_finetune_8xb16_clip-vit-l_llama-3.2-1b/model',
        dtype='bfloat16',
    ),
    compare=True,
)
