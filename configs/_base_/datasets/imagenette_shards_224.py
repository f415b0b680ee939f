# The same images enlarged to 224 pixels, for models of ImageNet-1k, and for loops over
# iterations.
_base_ = './imagenette_shards_96.py'

to_bgr = _base_.to_bgr
train_pipeline = [
    *to_bgr,
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.35, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    *to_bgr,
    dict(type='Resize', scale=(224, 224)),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    dataset=dict(dataset=dict(pipeline=train_pipeline)),
    sampler=dict(type='InfiniteSampler', shuffle=True),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
