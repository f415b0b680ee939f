# Vim for 8x8 images: 16 patch tokens and a class token, four blocks.
backbone = dict(
    type='mmtransmamba.Vim',
    arch=dict(embed_dims=64, depth=4, d_state=8),
    img_size=8,
    patch_size=2,
    in_channels=1,
)
