# VMamba for 8x8 images: two stages of two blocks with 4x4 and 2x2 tokens, the second
# as wide as the teacher.
backbone = dict(
    type='mmtransmamba.VMamba',
    arch=dict(
        embed_dims=32,
        depths=(2, 2),
        drop_path_rate=0.0,
        version='v05_noz',
        ssm_ratio=2.0,
        d_state=8,
    ),
    patch_size=2,
    in_channels=1,
)
