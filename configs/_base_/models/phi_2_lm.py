# Teacher and student start from one folder; a recipe specifies how the student is
# converted. Trained weights are float32.
_base_ = '../datasets/text_2048.py'

model = dict(
    type='mmtransmamba.LanguageDistiller',
    student=dict(
        type='mmtransmamba.CausalLM',
        path='checkpoints/phi-2',
        # Dropout would perturb the outputs, while the teacher's targets have no
        # dropout.
        convert=dict(resid_pdrop=0.0),
        dtype='float32',
    ),
    teacher=dict(
        type='mmtransmamba.CausalLM', path='checkpoints/phi-2', dtype='bfloat16'
    ),
    compare=True,
)

train_dataloader = dict(dataset=dict(tokenizer='checkpoints/phi-2'))
val_dataloader = dict(dataset=dict(tokenizer='checkpoints/phi-2'))
test_dataloader = val_dataloader
