_base_ = [
    '../../_base_/models/hybrid_cifar10_vit.py',
    '../../_base_/datasets/cifar10_few_32.py',
    '../../_base_/recipes/encoder/features.py',
]

model = _base_.pop('encoder_stage')
model.student.path = 'work_dirs/cifar10_vit_align/student'
