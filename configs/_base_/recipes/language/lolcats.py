# After LoLCATs (arXiv:2410.10254): the new parameters learn the attention's output,
# then low-rank adapters (rank 8, alpha 16) of q, k, v and o recover the model, each
# on half of the tokens. Ours: Gated DeltaNet in place of a learned feature map with a
# window, and the teacher's distribution in place of the task's loss.
width = 4096  # of Llama-3-8B, for which the learning rates are
convert = dict(layers='evenly', ratio=1.0, init='mimic', mixer='GatedDeltaNet')
optim_wrapper = dict(optimizer=dict(type='AdamW', weight_decay=0.0))
schedule = dict(warmup=0.05, decay=0.95, form='cosine')
stages = [
    dict(
        name='align',
        share=1,
        lr=1e-2,
        trains=['ssm'],
        terms=dict(mixer=dict(type='mmtransmamba.MixerOutputTerm')),
    ),
    dict(
        name='recover',
        share=1,
        lr=1e-4,
        trains=['qkv', 'out_proj'],
        adapters=dict(rank=8, alpha=16),
        terms=dict(kl=dict(type='mmtransmamba.TokenKLTerm')),
    ),
]
