# Vision-RWKV-T's width (v4) for 72x72 images: six blocks, 36 tokens.
backbone = dict(
    type='mmtransmamba.VRWKV',
    arch=dict(
        embed_dims=192,
        depth=6,
        num_heads=None,
        post_norm=False,
        init_values=None,
        key_norm=False,
        drop_path_rate=0.0,
    ),
    img_size=72,
    patch_size=12,
)
