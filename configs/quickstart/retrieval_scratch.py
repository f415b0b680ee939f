# VideoMamba on 1,024 clips, with the text encoder trained by CLIP4Clip.
_base_ = [
    '../_base_/models/video_mamba_shapes.py',
    '../_base_/datasets/moving_shapes.py',
    '../_base_/schedules/shapes.py',
    '../_base_/shapes_runtime.py',
]

model = dict(text_checkpoint='work_dirs/retrieval_teacher/epoch_12.pth')
train_cfg = dict(max_epochs=30, val_interval=10)
custom_hooks = [dict(type='mmtransmamba.ProgressBarHook', title='scratch')]
