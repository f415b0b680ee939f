# Stage 2: x, B and C, once v, k and q, learn with them.
_base_ = './linear_stage1_8xb16_hovle-2.6b.py'

model = dict(
    stage='stage2',
    student=dict(path='work_dirs/linear_stage1_8xb16_hovle-2.6b/student', convert=None),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
