# CLIP4Clip with the sequential Transformer for clips of 4 frames of 32x32 pixels: the
# mean over the frames alone could not distinguish a motion from its reverse.
clip = dict(
    projection_dim=64,
    # 51 ids: the words of mmtransmamba.ShapesTokenizer, padding, start and end.
    text_config=dict(
        vocab_size=51,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=24,
        bos_token_id=49,
        eos_token_id=50,
        pad_token_id=0,
    ),
    vision_config=dict(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
    ),
)
model = dict(
    type='mmtransmamba.CLIP4Clip',
    clip=clip,
    aggregation='transformer',
    temporal=dict(num_layers=2, max_frames=4, head_dim=16),
)
