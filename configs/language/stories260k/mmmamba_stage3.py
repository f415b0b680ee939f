# The paper's rate of 5e-5 was chosen for 20K iterations of a model of 2.7B parameters.
_base_ = './mmmamba_stage2.py'

model = dict(
    stage='stage3',
    student=dict(path='work_dirs/mmmamba_stage2/student'),
    terms=dict(mixer=None, kl=dict(type='mmtransmamba.TokenKLTerm')),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
