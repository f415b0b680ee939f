# Teacher and student start from the folder of the teacher that learned to reason; the
# data are the student's 40K samples. A recipe specifies how the student is converted.
_base_ = '../datasets/llava_cot.py'

model = dict(
    type='mmtransmamba.LanguageDistiller',
    student=dict(
        type='mmtransmamba.VisionLanguageModel',
        path='work_dirs/reasoning-sft_8xb16_clip-vit-l_llama-3.2-1b/model',
        dtype='float32',
    ),
    teacher=dict(
        type='mmtransmamba.VisionLanguageModel',
        path='work_dirs/reasoning-sft_8xb16_clip-vit-l_llama-3.2-1b/model',
        dtype='bfloat16',
    ),
    head=dict(type='mmtransmamba.ReasoningHead', max_new_tokens=2048),
    compare=True,
)

train_dataloader = dict(
    dataset=dict(
        files='data/llava_cot/student.jsonl',
        processor='work_dirs/reasoning-sft_8xb16_clip-vit-l_llama-3.2-1b/model',
    ),
)
val_dataloader = dict(
    dataset=dict(
        processor='work_dirs/reasoning-sft_8xb16_clip-vit-l_llama-3.2-1b/model'
    ),
)
test_dataloader = val_dataloader
