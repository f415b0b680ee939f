# VMamba for 72x72 images: four stages of five blocks with 18x18 to 3x3 tokens.
backbone = dict(
    type='mmtransmamba.VMamba',
    arch=dict(
        embed_dims=32,
        depths=(1, 1, 2, 1),
        drop_path_rate=0.0,
        version='v05_noz',
        ssm_ratio=1.0,
        d_state=1,
    ),
)
