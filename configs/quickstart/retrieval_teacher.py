# CLIP4Clip on 4,096 generated clips: it stands in for large-scale pre-training.
_base_ = [
    '../_base_/models/clip4clip_shapes.py',
    '../_base_/datasets/moving_shapes.py',
    '../_base_/schedules/shapes.py',
    '../_base_/shapes_runtime.py',
]

train_dataloader = dict(dataset=dict(num_videos=4096))
train_cfg = dict(max_epochs=12, val_interval=4)
custom_hooks = [dict(type='mmtransmamba.ProgressBarHook', title='teacher')]
