# PMamba-T from random weights on all 9,469 images of Imagenette at 96 pixels.
_base_ = [
    '../../_base_/models/plain_mamba_t.py',
    '../../_base_/datasets/imagenette_shards_96.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]

model = dict(backbone=dict(img_size=96), head=dict(num_classes=10))
auto_scale_lr = dict(base_batch_size=64)
