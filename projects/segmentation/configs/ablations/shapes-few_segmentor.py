# The transfer from a teacher that knows the task: the backbone of a ViT segmentor.
_base_ = '../trans-plain-mamba-upernet_shapes-few.py'

model = dict(
    teacher=dict(
        _delete_=True,
        type='mmtransmamba.MMPretrainTeacher',
        model=dict(
            type='VisionTransformer',
            arch=dict(
                embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=192
            ),
            img_size=64,
            patch_size=4,
            with_cls_token=False,
            out_type='featmap',
            out_indices=(0, 1, 2, 3),
            final_norm=False,
        ),
        checkpoint='work_dirs/vit-segmentor_shapes/iter_1200.pth',
        mean=[127.5, 127.5, 127.5],
        std=[74.0, 74.0, 74.0],
    )
)
