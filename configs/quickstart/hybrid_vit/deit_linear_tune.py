_base_ = [
    '../../_base_/models/hybrid_deit_tiny.py',
    '../../_base_/datasets/imagenette_shards_224.py',
    '../../_base_/recipes/encoder/tune.py',
]

model = _base_.pop('encoder_stage')
model.student.path = 'work_dirs/deit_linear_features/student'
