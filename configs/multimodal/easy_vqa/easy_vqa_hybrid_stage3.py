# The whole student learns to reproduce the teacher's outputs.
_base_ = './easy_vqa_hybrid_stage2.py'

model = dict(
    stage='stage3',
    student=dict(path='work_dirs/easy_vqa_hybrid_stage2/student'),
    terms=dict(mixer=None, kl=dict(type='mmtransmamba.TokenKLTerm')),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_iters=300, val_interval=300)
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook'),
    dict(type='mmtransmamba.ProgressBarHook', title='hybrid, stage 3'),
]
