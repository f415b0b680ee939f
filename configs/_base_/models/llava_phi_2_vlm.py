# Teacher and student from the folder that fine-tuning SigLIP and Phi-2 leaves; a recipe
# says how the student is converted. The weights that are trained are float32.
_base_ = '../datasets/sharegpt4v_sft.py'

model = dict(
    type='mmtransmamba.LanguageDistiller',
    student=dict(
        type='mmtransmamba.VisionLanguageModel',
        path='work_dirs/llava_finetune_8xb16_siglip-so400m_phi-2/model',
        # Dropout would move the targets, which the teacher gives without.
        convert=dict(resid_pdrop=0.0),
        dtype='float32',
    ),
    teacher=dict(
        type='mmtransmamba.VisionLanguageModel',
        path='work_dirs/llava_finetune_8xb16_siglip-so400m_phi-2/model',
        dtype='bfloat16',
    ),
    compare=True,
)

train_dataloader = dict(dataset=dict(processor='checkpoints/llava-phi-2'))
val_dataloader = dict(dataset=dict(processor='checkpoints/llava-phi-2'))
test_dataloader = val_dataloader
