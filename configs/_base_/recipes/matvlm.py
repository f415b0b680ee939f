# MaTVLM: 25 % of the layers, evenly spread, become Mamba-2. They, and the connector of
# a vision-language model, learn in one stage from the teacher's distribution and hidden
# states. A config takes the recipe of the model with `model = _base_.pop('matvlm')`.
_base_ = ['../schedules/matvlm.py', '../language_runtime.py']

matvlm = dict(
    stage='matvlm',
    student=dict(convert=dict(layers='evenly', ratio=0.25, init='vkq')),
    terms=dict(
        kl=dict(type='mmtransmamba.TokenKLTerm', weight=1.0),
        layer=dict(type='mmtransmamba.ForcedLayerTerm', weight=1.0),
    ),
)
