# Stage 3: the same parameters, end to end, from the teacher's distribution.
_base_ = './hybrid_stage2_8xb16_hovle-2.6b.py'

model = dict(
    stage='stage3',
    student=dict(path='work_dirs/hybrid_stage2_8xb16_hovle-2.6b/student'),
    terms=dict(mixer=None, kl=dict(type='mmtransmamba.TokenKLTerm')),
)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
train_dataloader = dict(batch_size=8, sampler=dict(batch_size=8))
auto_scale_lr = dict(base_batch_size=64)
