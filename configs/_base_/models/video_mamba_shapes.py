# VideoMamba for clips of 4 frames of 32x32 pixels, 16 tokens each; four blocks.
_base_ = './clip4clip_shapes.py'

model = dict(
    _delete_=True,
    type='mmtransmamba.VideoMambaRetriever',
    backbone=dict(
        type='mmtransmamba.VideoMamba',
        arch=dict(embed_dims=64, depth=4, d_state=8, d_conv=4, expand=2),
        img_size=32,
        patch_size=8,
        num_frames=4,
    ),
    clip=_base_.clip,
)
