# Stage 2 also trains v, k and q, which come from the attention.
_base_ = './gdn_stage1_8xb16_llama-3.2-1b.py'

model = dict(
    stage='stage2',
    student=dict(path='work_dirs/gdn_stage1_8xb16_llama-3.2-1b/student', convert=None),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
