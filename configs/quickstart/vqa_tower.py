# The vision tower learns the content of each cell of a picture.
_base_ = '../_base_/recipes/vqa_tower.py'

model = dict(
    config=dict(image_size=36, patch_size=12),
    num_classes=25,
    processor='data/shapes_vqa',
)
train_dataloader = dict(
    dataset=dict(
        type='mmtransmamba.ShapesCells',
        processor='data/shapes_vqa',
        split='train',
        num_scenes=3000,
    ),
)
train_cfg = dict(max_iters=150)
