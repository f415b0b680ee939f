# MaTVLM: 25 % of the layers, evenly spread, become Mamba-2. They learn in one stage
# from the teacher's distribution and hidden states.
_base_ = [
    '../../_base_/models/llama_3_2_1b_lm.py',
    '../../_base_/schedules/matvlm.py',
    '../../_base_/language_runtime.py',
]

model = dict(
    stage='matvlm',
    student=dict(convert=dict(layers='evenly', ratio=0.25, init='vkq')),
    terms=dict(
        kl=dict(type='mmtransmamba.TokenKLTerm', weight=1.0),
        layer=dict(type='mmtransmamba.ForcedLayerTerm', weight=1.0),
    ),
)
