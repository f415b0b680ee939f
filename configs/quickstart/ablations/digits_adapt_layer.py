# Table VII, row "Adapt-Layer+Feature+Logits".
_base_ = '../digits_transfer.py'

model = dict(terms=dict(direction=None))
custom_hooks = [
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
    dict(
        type='mmtransmamba.TermDecayHook',
        terms=['feature', 'layer'],
        end=0.6,
    ),
]
