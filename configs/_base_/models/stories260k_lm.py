# A Llama of 260K parameters that generates short stories.
_base_ = '../datasets/stories260k.py'

model = dict(
    type='mmtransmamba.LanguageDistiller',
    student=dict(type='mmtransmamba.CausalLM', path='data/stories260k/hf'),
    teacher=dict(type='mmtransmamba.CausalLM', path='data/stories260k/hf'),
    compare=True,
)
