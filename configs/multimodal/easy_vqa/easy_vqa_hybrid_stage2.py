# The projections that replace q, k, v are trained as well.
_base_ = './easy_vqa_hybrid_stage1.py'

model = dict(
    stage='stage2',
    student=dict(path='work_dirs/easy_vqa_hybrid_stage1/student', convert=None),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook'),
    dict(type='mmtransmamba.ProgressBarHook', title='hybrid, stage 2'),
]
