# Vim-Ti's width for 72x72 images: six blocks, 36 tokens and a class token.
backbone = dict(
    type='mmtransmamba.Vim',
    arch=dict(embed_dims=192, depth=6),
    img_size=72,
    patch_size=12,
)
