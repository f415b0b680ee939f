# The vision tower learns the content of each cell of a picture, in place of CLIP's
# pre-training.
_base_ = [
    '../_base_/models/vqa_tower.py',
    '../_base_/schedules/vqa.py',
    '../_base_/iter_language_runtime.py',
]

model = dict(
    config=dict(image_size=36, patch_size=12),
    num_classes=25,
    processor='data/shapes_vqa',
)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type='mmtransmamba.ShapesCells',
        processor='data/shapes_vqa',
        split='train',
        num_scenes=3000,
    ),
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
train_cfg = dict(max_iters=150)
val_cfg = None
test_cfg = None
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook', folder='model'),
    dict(type='mmtransmamba.ProgressBarHook', title='vision tower'),
]
