# mmMamba (arXiv:2502.13145). The student: Sections 4.1 and 4.5. The stages: Equations
# 3 to 5. Their settings, and 20K steps of 128, 128 and 64 sequences: Section 5.1.
width = 2048  # of HoVLE, for which the learning rates are
convert = dict(layers='interleaved', ratio=0.75, init='mimic')
optim_wrapper = dict(
    optimizer=dict(type='AdamW', betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
schedule = dict(warmup=0.1, decay=0.1)
_mixer_output = dict(mixer=dict(type='mmtransmamba.MixerOutputTerm'))
stages = [
    dict(name='stage1', share=2, lr=1e-3, trains=['ssm'], terms=_mixer_output),
    dict(name='stage2', share=2, lr=5e-4, trains=['ssm', 'qkv'], terms=_mixer_output),
    dict(
        name='stage3',
        share=1,
        lr=5e-5,
        trains=['ssm', 'qkv'],
        terms=dict(kl=dict(type='mmtransmamba.TokenKLTerm')),
    ),
]
