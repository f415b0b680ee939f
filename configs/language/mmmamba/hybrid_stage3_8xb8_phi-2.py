# Stage 3: the same parameters, end to end, from the teacher's distribution.
_base_ = './hybrid_stage2_8xb16_phi-2.py'

model = dict(
    stage='stage3',
    student=dict(path='work_dirs/hybrid_stage2_8xb16_phi-2/student'),
    terms=dict(mixer=None, kl=dict(type='mmtransmamba.TokenKLTerm')),
)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=64)
