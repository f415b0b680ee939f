# Table VII, row "Logits+Feature".
_base_ = '../digits_transfer.py'

model = dict(terms=dict(layer=None, direction=None))
custom_hooks = [
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
    dict(
        type='mmtransmamba.TermDecayHook',
        terms=['feature'],
        end=0.6,
    ),
]
