# Stage 2 also trains x, B and C, which were initialised from v, k and q.
_base_ = './hybrid_stage1_8xb16_llama-3.2-1b.py'

model = dict(
    stage='stage2',
    student=dict(
        path='work_dirs/hybrid_stage1_8xb16_llama-3.2-1b/student', convert=None
    ),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
