# Adaptive weights within the directions and no layer term: Eq. 12, as a mean.
_base_ = '../digits_transfer.py'

model = dict(terms=dict(layer=None))
custom_hooks = [
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
    dict(
        type='mmtransmamba.TermDecayHook',
        terms=['feature', 'direction'],
        end=0.6,
    ),
]
