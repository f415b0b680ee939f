# Stage 3: the same parameters, end to end, from the teacher's distribution.
_base_ = './gdn_stage2_8xb16_llama-3.2-1b.py'

model = dict(
    stage='stage3',
    student=dict(path='work_dirs/gdn_stage2_8xb16_llama-3.2-1b/student'),
    terms=dict(mixer=None, kl=dict(type='mmtransmamba.TokenKLTerm')),
)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=64)
