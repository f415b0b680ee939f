# RADLADS (arXiv:2505.03005), steps 1 and 2, with the settings of its training code:
# 100M and 500M tokens in sequences of 512, AdamW (0.9, 0.95) without weight decay;
# step 1 falls from 1e-3 to 1e-5 along a cosine, step 2 is constant. Step 1 trains the
# mixers, step 2 everything (the paper reports that freezing parts in step 2 is
# worse). The paper's mixers are RAD-RWKV6 and 7; here it is Gated DeltaNet.
width = 3584  # of Qwen2.5-7B, for which the learning rates are
convert = dict(layers='evenly', ratio=1.0, init='mimic', mixer='GatedDeltaNet')
optim_wrapper = dict(optimizer=dict(type='AdamW', betas=(0.9, 0.95), weight_decay=0.0))
stages = [
    dict(
        name='align',
        share=1,
        lr=1e-3,
        schedule=dict(warmup=0.02, decay=0.98, form='cosine', end=0.01),
        trains=['ssm', 'qkv', 'out_proj'],
        terms=dict(mixer=dict(type='mmtransmamba.MixerOutputTerm')),
    ),
    dict(
        name='kl',
        share=5,
        lr=1e-5,
        schedule=dict(warmup=0.02, decay=0.0, end=1.0),
        trains='all',
        terms=dict(kl=dict(type='mmtransmamba.TokenKLTerm')),
    ),
]
