_base_ = './mmmamba_stage1.py'

model = dict(
    stage='stage2',
    student=dict(path='work_dirs/mmmamba_stage1/student', convert=None),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
