# Half of the attention layers become linear.
_base_ = [
    '../../_base_/models/hybrid_deit_tiny.py',
    '../../_base_/datasets/imagenette_shards_224.py',
    '../../_base_/recipes/encoder/align.py',
]

model = _base_.pop('encoder_stage')
model.student.convert.ratio = 0.5
