# Teacher and student start from the folder that fine-tuning of SigLIP and Phi-2 writes;
# a recipe specifies how the student is converted. Trained weights are float32.
_base_ = '../datasets/sharegpt4v_sft.py'

model = dict(
    type='mmtransmamba.LanguageDistiller',
    student=dict(
        type='mmtransmamba.VisionLanguageModel',
        path='work_dirs/llava_finetune_8xb16_siglip-so400m_phi-2/model',
        # Dropout would perturb the outputs, while the teacher's targets have no
        # dropout.
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
