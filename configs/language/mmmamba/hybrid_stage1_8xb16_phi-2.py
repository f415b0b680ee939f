# mmMamba-hybrid: the first of every four layers keeps attention.
_base_ = [
    '../../_base_/models/phi_2_lm.py',
    '../../_base_/recipes/mmmamba_stage1.py',
]

model = _base_.pop('mmmamba')
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
