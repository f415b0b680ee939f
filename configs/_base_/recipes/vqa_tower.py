# The vision tower learns the content of each patch of a picture, in place of CLIP's
# pre-training. Pictures, classes and processor come from the data set.
_base_ = [
    '../models/vqa_tower.py',
    '../schedules/vqa.py',
    '../iter_language_runtime.py',
]

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
val_cfg = None
test_cfg = None
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook', folder='model'),
    dict(type='mmtransmamba.ProgressBarHook', title='vision tower'),
]
