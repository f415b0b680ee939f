# The vision tower learns shape and colour of each training picture, in place of CLIP's
# pre-training.
_base_ = [
    '../../_base_/models/vqa_tower.py',
    '../../_base_/schedules/vqa.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    config=dict(image_size=64, patch_size=16),
    num_classes=24,
    processor='data/easy_vqa/start',
)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.EasyVQAPatches',
        data_root='data/easy_vqa',
        processor='data/easy_vqa/start',
    ),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_iters=2000)
val_cfg = None
test_cfg = None
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook', folder='model'),
    dict(type='mmtransmamba.ProgressBarHook', title='vision tower'),
]
