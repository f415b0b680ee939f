# MaTVLM (arXiv:2503.13440). The student: Section 3.2, 25 % of Table 2. The terms,
# with weights 1 and 1 and without the task's loss, and the settings: Equation 11,
# Section 4.1.
width = 2560  # of Phi-2, for which the learning rate is
convert = dict(layers='evenly', ratio=0.25, init='vkq')
optim_wrapper = dict(optimizer=dict(type='AdamW', betas=(0.9, 0.95), weight_decay=0.01))
schedule = dict(warmup=0.1, decay=0.1)
stages = [
    dict(
        name='matvlm',
        share=1,
        lr=2e-4,
        trains=['ssm', 'qkv', 'out_proj'],
        terms=dict(
            kl=dict(type='mmtransmamba.TokenKLTerm'),
            layer=dict(type='mmtransmamba.ForcedLayerTerm'),
        ),
    ),
]
