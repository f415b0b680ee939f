"""Retrievers small enough for tests, and batches for them."""

import torch

VOCABULARY = 20
EOS = VOCABULARY - 1
# 8 text tokens at most; frames of 4x4 patches; embeddings of 16.
CLIP = dict(
    projection_dim=16,
    text_config=dict(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=0,
    ),
    vision_config=dict(
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    ),
)
TEACHER = dict(type='mmtransmamba.CLIP4Clip', clip=CLIP)
BACKBONE = dict(
    type='mmtransmamba.VideoMamba',
    arch=dict(embed_dims=12, depth=2, d_state=4, d_conv=4, expand=2),
    img_size=32,
    patch_size=16,
    num_frames=4,
)
STUDENT = dict(type='mmtransmamba.VideoMambaRetriever', backbone=BACKBONE, clip=CLIP)


def captions(count, length=7, seed=0):
    """Token ids that begin, end, and are padded as a tokenizer would."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, EOS, (count, length), generator=generator)
    ends = torch.randint(2, length, (count, 1), generator=generator)
    position = torch.arange(length)
    ids[:, 0] = 1
    ids[position == ends] = EOS
    ids[position > ends] = 0
    return dict(input_ids=ids, attention_mask=(position <= ends).long())


def training_batch(count=3, frames=4, size=32, seed=0):
    """A training batch as a dataloader returns it."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, frames, size, size)
    return dict(
        video=torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        video_id=[f'video{i}' for i in range(count)],
        caption_id=list(range(count)),
        **captions(count, seed=seed),
    )
