# MaTVLM's single stage.
_base_ = [
    '../../_base_/models/stories260k_lm.py',
    '../../_base_/schedules/stories260k.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    stage='matvlm',
    student=dict(convert=dict(layers='evenly', ratio=0.5, init='vkq')),
    terms=dict(
        kl=dict(type='mmtransmamba.TokenKLTerm', weight=1.0),
        layer=dict(type='mmtransmamba.ForcedLayerTerm', weight=1.0),
    ),
)
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.95), weight_decay=0.01))
