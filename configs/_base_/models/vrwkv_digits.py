# Vision-RWKV (v4) for 8x8 images: 16 tokens, four blocks.
backbone = dict(
    type='mmtransmamba.VRWKV',
    arch=dict(
        embed_dims=64,
        depth=4,
        num_heads=None,
        post_norm=False,
        init_values=None,
        key_norm=False,
        drop_path_rate=0.0,
    ),
    img_size=8,
    patch_size=2,
    in_channels=1,
)
