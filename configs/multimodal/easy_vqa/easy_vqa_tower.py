# The vision tower learns shape and colour of each training picture.
_base_ = '../../_base_/recipes/vqa_tower.py'

model = dict(
    config=dict(image_size=64, patch_size=16),
    num_classes=24,
    processor='data/easy_vqa/start',
)
train_dataloader = dict(
    dataset=dict(
        type='mmtransmamba.EasyVQAPatches',
        data_root='data/easy_vqa',
        processor='data/easy_vqa/start',
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_iters=2000)
