# TransMamba's cosines with the task and the teacher's distribution. No Mamba of this
# width is published, so the mixers are randomly initialised.
_base_ = [
    '../../_base_/models/stories260k_lm.py',
    '../../_base_/schedules/stories260k.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    stage='transmamba',
    student=dict(convert=dict(layers='high', ratio=0.5, init='subclone')),
    terms=dict(
        task=dict(type='mmtransmamba.NextTokenTerm', weight=0.5),
        hidden=dict(
            type='mmtransmamba.HiddenStatesTerm',
            weight=0.5,
            weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
        ),
        kl=dict(type='mmtransmamba.TokenKLTerm', weight=0.5),
    ),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmtransmamba.LayerWeightsHook', interval=50),
]
