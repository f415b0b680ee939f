# Teacher and student start from one folder; a recipe specifies how the student is
# converted. Trained weights are float32.
_base_ = '../datasets/text_2048.py'

model = dict(
    type='mmtransmamba.LanguageDistiller',
    student=dict(
        type='mmtransmamba.CausalLM',
        path='checkpoints/Llama-3.2-1B',
        dtype='float32',
    ),
    teacher=dict(
        type='mmtransmamba.CausalLM', path='checkpoints/Llama-3.2-1B', dtype='bfloat16'
    ),
    compare=True,
)
