_base_ = [
    '../../_base_/models/hybrid_vit_digits.py',
    '../../_base_/datasets/digits.py',
    '../../_base_/recipes/encoder/features.py',
]

model = _base_.pop('encoder_stage')
model.student.path = 'work_dirs/digits_vit_align/student'
train_cfg = dict(max_iters=300, val_interval=100)
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
