# The quickstart's transfer (30 digits, a DeiT teacher that has seen 1,200) with another
# student. From scratch: --cfg-options model.alpha=1 custom_hooks="[]"
_base_ = '../../../configs/quickstart/digits_transfer.py'

custom_imports = dict(imports=['projects.example_backbone.vision_gla'])

model = dict(
    student=dict(
        backbone=dict(
            _delete_=True,
            type='mmtransmamba.VisionGLA',
            embed_dims=64,
            depth=4,
            num_heads=4,
            img_size=8,
            patch_size=2,
            in_channels=1,
        )
    ),
    terms=dict(direction=dict(weight=1 / 8)),  # two directions, four layers
)
custom_hooks = [
    dict(type='mmtransmamba.SubcloneInitializer', weight_map='vit_to_gla'),
    _base_.decay,
    dict(type='mmtransmamba.ProgressBarHook', title='transfer'),
]
