# Taylor-Calibrate (arXiv:2606.16429): a calibrated Gated DeltaNet, then the two
# stages of KL-guided selection (arXiv:2512.20569), with the settings of
# Taylor-Calibrate's configs: 100M tokens along a cosine from 1e-3, then 600M at a
# constant 1e-4 for the attention and the mixers and 7e-6 for everything else;
# clipping at 1. Every fourth layer of the source keeps its attention. Calibration: up
# to 300 steps for each layer.
width = 1536  # of Qwen2.5-1.5B, for which the learning rates are
convert = dict(
    layers='interleaved', ratio=0.75, init='calibrate', mixer='GatedDeltaNet'
)
calibration = dict(share=0.1, steps=300)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', weight_decay=0.0), clip_grad=dict(max_norm=1.0)
)
_slow = {
    name: dict(lr_mult=0.07)
    for name in ('.mlp.', 'layernorm', 'model.norm.', 'embed_tokens', 'lm_head')
}
stages = [
    dict(
        name='align',
        share=1,
        lr=1e-3,
        schedule=dict(warmup=0.02, decay=0.98, form='cosine'),
        trains=['ssm', 'qkv', 'out_proj'],
        terms=dict(mixer=dict(type='mmtransmamba.MixerOutputTerm')),
    ),
    dict(
        name='kl',
        share=6,
        lr=1e-4,
        schedule=dict(warmup=0.02, decay=0.0, end=1.0),
        trains='all',
        optim_wrapper=dict(paramwise_cfg=dict(custom_keys=_slow)),
        terms=dict(kl=dict(type='mmtransmamba.TokenKLTerm')),
    ),
]
