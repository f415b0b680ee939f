# Distillation as in digits_transfer.py, without subcloning.
_base_ = '../digits_transfer.py'

custom_hooks = [
    dict(type='mmtransmamba.LayerWeightsHook', interval=20),
    dict(
        type='mmtransmamba.TermDecayHook',
        terms=['feature', 'layer', 'direction'],
        end=0.6,
    ),
]
